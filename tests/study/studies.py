"""A study of CartPole that several test files run."""

from pathlib import Path

import yaml

CARTPOLE = {
    "title": "CartPole & losses",
    "settings": {"algo": "pd", "env": "CartPole-v1", "n_timesteps": 600, "rollout_policy": "teacher"},
    "grid": {"loss": ["kl", "nll"], "seed": [0]},
    "record": True,
    "evaluation": {"n_episodes": 8},
    "published": [{"env": "CartPole-v1", "loss": "kl", "percent": 101.5}],
}


def write(path: Path, **changes) -> Path:
    path.write_text(yaml.safe_dump({**CARTPOLE, **changes}, sort_keys=False))
    return path
