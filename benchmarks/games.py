"""
How many games side by side: CPU time and wall-clock of play with the teacher's answers, without updates.

    python -m benchmarks.games --n-envs 8 16 32 --rollout-policies teacher student

All settings take turns in one process, round by round, so that other load on the machine hits all of them.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.throughput import add_teacher_argument


def make(env_id: str, teacher: str, n_envs: int, rollout_policy: str, n_steps: int) -> Any:
    """A model of the Zoo's settings that plays and stores, and does not learn within ``n_steps``."""
    from benchmarks.plain_sb3 import make_plain_env
    from sb3_distill import PolicyDistillation

    return PolicyDistillation(
        "Net3Policy",
        make_plain_env(env_id, n_envs),
        teacher=teacher,
        buffer_size=n_steps,
        learning_starts=2 * n_steps,
        train_freq=216 // n_envs,
        gradient_steps=1,
        rollout_policy=rollout_policy,
        n_teacher_episodes=0,
        seed=0,
        device="cpu",
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m benchmarks.games``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_teacher_argument(parser)
    parser.add_argument("--env", default="PongNoFrameskip-v4")
    parser.add_argument("--n-envs", nargs="+", type=int, default=[8, 16, 32])
    parser.add_argument("--rollout-policies", nargs="+", default=["teacher", "student"], choices=["teacher", "student"])
    parser.add_argument("--n-steps", type=int, default=2592, help="steps of all games together in one round")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(argv)
    n_all = args.n_steps * (args.rounds + 1)
    models = {
        (who, n_envs): make(args.env, args.teacher, n_envs, who, n_all)
        for who in args.rollout_policies
        for n_envs in args.n_envs
    }
    found: dict[tuple[str, int], list[tuple[float, float]]] = {key: [] for key in models}
    for index in range(args.rounds + 1):
        for key, model in models.items():
            wall, cpu = time.perf_counter(), time.process_time()
            model.learn(args.n_steps, reset_num_timesteps=index == 0)
            if index > 0:  # the first round warms up
                found[key].append((time.perf_counter() - wall, time.process_time() - cpu))
    for who in args.rollout_policies:
        for n_envs in args.n_envs:
            wall, cpu = (statistics.median(column) for column in zip(*found[who, n_envs], strict=True))
            base = found[who, args.n_envs[0]]
            ratio = statistics.median(own[1] / first[1] for own, first in zip(found[who, n_envs], base, strict=True))
            cost = f"{1000 * cpu / args.n_steps:.3f} ms of processor time per step ({ratio:.2f})"
            print(f"{who} plays, {n_envs} games: {cost}, {args.n_steps / wall:.0f} steps/s", flush=True)


if __name__ == "__main__":
    main()
