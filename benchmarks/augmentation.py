"""
What augmentation does to a student: its score on clean observations, on noisy ones, and on observations that gradient
steps have moved to where it errs most.

python -m benchmarks.augmentation --env CartPole-v1 --teacher zoo:dqn/CartPole-v1

Each augmentation is a run of ``PolicyDistillation`` for each seed; all play the same episodes. Strengths are shares of
the range of each entry, as those of ``sb3-distill evaluate --obs-noise``: its bounds, and where it has none the range
in the student's memory, widened by half at both ends. Gradient steps know the student and its teacher's answers.
Boolean observations have no noise.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from rl_zoo3.utils import StoreDict
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv

from sb3_distill import PolicyDistillation, load_teacher
from sb3_distill.base.augmentation import adversarial
from sb3_distill.buffers.distillation import DistillationSamples
from sb3_distill.envs.make import make_eval_env
from sb3_distill.evaluation.disturbance import Disturbance, widened
from sb3_distill.evaluation.environments import transpose_for
from sb3_distill.evaluation.play import evaluate_paired
from sb3_distill.evaluation.players import Player
from sb3_distill.results.tables import format_markdown

NOISE, STEPS = 0.02, (0.005, 0.01, 0.02)


class Attacked:
    """A student that sees observations which a step along the gradient has moved to where its loss is larger."""

    def __init__(self, model: Any, teacher: Any, strength: float) -> None:
        self.model, self.teacher, self.strength = model, teacher, strength
        seen: Any = model.replay_buffer.sample_observations(1_000).numpy()
        space = model.observation_space
        low, high = widened(space, seen.min(axis=0).astype(float), seen.max(axis=0).astype(float))
        self.box = spaces.Box(low.astype(np.float32), high.astype(np.float32))
        model.policy.set_training_mode(False)

    def predict(self, observation: Any, *_: Any, **__: Any) -> tuple[np.ndarray, None]:
        """As SB3's ``predict``, greedily."""
        obs: Any = obs_as_tensor(observation, self.model.device)
        answers, _ = self.teacher.answer(obs)

        def loss(moved: Any) -> th.Tensor:
            samples = DistillationSamples(moved, answers)
            return self.model.student_loss(self.model.student, samples)[0]

        moved = adversarial(loss, obs, {"": self.box}, self.strength)
        with th.no_grad():
            return self.model.policy.answer(moved).preferences.argmax(dim=1).cpu().numpy(), None


def make_env(env_id: str, shape: Any, n_envs: int) -> VecEnv:
    """The environment in which scores are measured."""
    return transpose_for(make_eval_env(env_id, n_envs), shape)


def scores_of(
    model: Any, teacher: Any, play: Callable[..., Any], can_be_noisy: bool, strengths: Sequence[float]
) -> list[float]:
    """Mean scores of a student: clean, noisy, and for each strength of a gradient step."""

    def score(player: Player, **kwargs: Any) -> float:
        return float(play(player, **kwargs).mean)

    def noisy() -> float:
        return score(model, wrapper=Disturbance(obs_noise=NOISE).wrapper(partial(play, model)))

    attacked = [score(Attacked(model, teacher, strength)) for strength in strengths]
    return [score(model), noisy() if can_be_noisy else float("nan"), *attacked]


def main() -> None:
    """Entry point of ``python -m benchmarks.augmentation``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--teacher", default="zoo:dqn/CartPole-v1", help="an agent with Discrete actions")
    parser.add_argument("--augmentations", nargs="+", default=["none", "adversarial"])
    parser.add_argument("--strengths", nargs="+", type=float, default=STEPS, help="of the gradient steps")
    parser.add_argument("--policy", default="MlpPolicy")
    parser.add_argument("--params", nargs="*", default={}, action=StoreDict, help="settings of PolicyDistillation")
    parser.add_argument("-n", "--n-timesteps", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--n-episodes", type=int, default=100)
    args = parser.parse_args()
    th.set_num_threads(1)
    teacher = load_teacher(args.teacher, device="cpu")
    shape, space = teacher.observation_space.shape, gym.spec(args.env).make().observation_space
    make = partial(make_env, args.env, shape)

    def play(player: Player, n_eval_episodes: int = args.n_episodes, seed: int = 1_000_000, **kwargs: Any) -> Any:
        return evaluate_paired(player, make, n_eval_episodes, seed=seed, **kwargs)

    print(f"{args.env}: the teacher {args.teacher} scores {play(teacher).mean:.1f}", flush=True)
    steps = [f"gradient step {strength:g}" for strength in args.strengths]
    rows = [["augmentation", "clean", f"noise {NOISE:g}", *steps]]
    for augmentation in args.augmentations:
        found = []
        for seed in args.seeds:
            settings = {"n_teacher_episodes": 0, **args.params, "augmentation": augmentation, "seed": seed}
            model = PolicyDistillation(args.policy, make(8), teacher, device="cpu", **settings)
            model.learn(args.n_timesteps)
            found.append(scores_of(model, teacher, play, space.dtype != np.bool_, args.strengths))
            print(f"{augmentation}, seed {seed}: {' '.join(f'{score:.1f}' for score in found[-1])}", flush=True)
        means, stds = np.mean(found, axis=0), np.std(found, axis=0, ddof=min(1, len(found) - 1))
        texts = (f"{mean:.1f} ± {std:.1f}" for mean, std in zip(means, stds, strict=True))
        rows.append([augmentation, *("-" if "nan" in text else text for text in texts)])
    print(format_markdown(rows, n_left=1))


if __name__ == "__main__":
    main()
