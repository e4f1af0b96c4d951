"""Resident memory of a distillation run whose memory of 540,000 observations is full.

``python -m benchmarks.memory`` plays a game at random until the memory is full, then trains a little, and prints the
process's peak resident memory: emulators, networks, torch and all.
"""

import argparse
import resource

import numpy as np

from benchmarks.throughput import N_ENVS, STEPS_PER_ROLLOUT, Options, add_teacher_argument, make_ours


def main() -> None:
    """Entry point of ``python -m benchmarks.memory``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="PongNoFrameskip-v4")
    parser.add_argument("--buffer-size", type=int, default=540_000)
    add_teacher_argument(parser)
    args = parser.parse_args()

    model = make_ours(Options(args.env, args.teacher, "net1", 0, args.buffer_size))
    rng = np.random.default_rng(0)
    n_actions = model.action_space.n
    obs = model.env.reset()
    while not model.replay_buffer.full:
        model.replay_buffer.add(obs, np.zeros((N_ENVS, n_actions), dtype=np.float32))
        obs, *_ = model.env.step(rng.integers(n_actions, size=N_ENVS))
    model.learn(2 * STEPS_PER_ROLLOUT)
    stored = model.replay_buffer.size() * N_ENVS
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{stored:,} observations of {obs.shape[1:]} in memory: peak resident memory {peak / 1e9:.2f} GB")
    print(f"As stacks, twice, as SB3's ReplayBuffer keeps them: {2 * stored * obs[0].nbytes / 1e9:.1f} GB")


if __name__ == "__main__":
    main()
