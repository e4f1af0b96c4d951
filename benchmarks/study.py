"""A study of 24 cells in local processes and on Ray, and the time saved by recordings of the teacher's play.

``python -m benchmarks.study --teacher rl-trained-agents/dqn/CartPole-v1_1`` prints whether both backends give the same
rows, and how much faster cells are that read the recording than the cell that writes it. To use another game, pass
``--env`` and ``--policies``: ``--env PongNoFrameskip-v4 --policies Net3Policy Net4Policy Net5Policy --n-timesteps 27000
--backends local``.
"""

import argparse
import json
import statistics
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from sb3_distill.study.backends import Backend, run_locally, run_on_ray
from sb3_distill.study.file import read_study
from sb3_distill.study.run import collect, run_study


def main() -> None:
    """Entry point of ``python -m benchmarks.study``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--policies", nargs="+", help="instead of four widths, three losses and two seeds")
    parser.add_argument("--n-timesteps", type=int, default=3_000)
    parser.add_argument("--n-episodes", type=int, default=10)
    parser.add_argument("--backends", nargs="+", default=["local", "ray"], choices=["local", "ray"])
    parser.add_argument("-j", "--jobs", type=int, default=2)
    args = parser.parse_args()

    grid: dict[str, Any] = {"policy": args.policies, "seed": [0]}
    if not args.policies:
        widths = {str(width): {"policy_kwargs": {"net_arch": [width]}} for width in (4, 8, 16, 32)}
        grid = {"student": widths, "loss": ["mse", "nll", "kl"], "seed": [0, 1]}
    study_file = {
        "settings": {
            "algo": "pd",
            "env": args.env,
            "teacher": str(Path(args.teacher).resolve()),
            "n_timesteps": args.n_timesteps,
            "rollout_policy": "teacher",
        },
        "grid": grid,
        "record": True,
        "evaluation": {"n_episodes": args.n_episodes},
    }
    results = {}
    with TemporaryDirectory() as temporary:
        path = Path(temporary) / "study.yml"
        path.write_text(yaml.safe_dump(study_file, sort_keys=False))
        study = read_study(path)
        for name in args.backends:
            backend: Backend = run_locally(args.jobs, 1) if name == "local" else run_on_ray(None, args.jobs, 1)
            folder = Path(temporary) / name
            folder.mkdir()
            failures = run_study(study, folder, backend)
            results[name] = collect(study, folder)
            manifests = json.loads((folder / "results.json").read_text())["manifests"]
            # The first cell records the teacher's play and scores the teacher; the others read both from files.
            seconds = [sum(manifest["seconds"].values()) for manifest in manifests]
            later = statistics.median(seconds[1:])
            print(
                f"{name}: {len(manifests)} cells, {len(failures)} failed; the first took {seconds[0]:.1f} s, the "
                f"others {later:.1f} s (median), {seconds[0] / later:.2f} times as fast"
            )
    if len(results) > 1:
        print("the same rows" if results["local"] == results["ray"] else "DIFFERENT ROWS")


if __name__ == "__main__":
    main()
