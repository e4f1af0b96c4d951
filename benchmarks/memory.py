"""Peak resident memory of a distillation run with a full replay buffer of 540,000 observations.

``python -m benchmarks.memory`` fills the replay buffer by random play, trains for a few updates, and prints the peak
resident memory of the process (including emulators, networks and torch).
"""

import argparse
import resource

import numpy as np

from benchmarks.records import step_record
from benchmarks.throughput import N_ENVS, STEPS_PER_ROLLOUT, Options, add_teacher_argument, make_ours
from sb3_distill.common.answers import Answers


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
    answers = Answers(q_values=np.zeros((N_ENVS, n_actions), dtype=np.float32))
    obs = model.env.reset()
    while not model.replay_buffer.full:
        model.replay_buffer.add(step_record(obs, answers))
        obs, *_ = model.env.step(rng.integers(n_actions, size=N_ENVS))
    model.learn(2 * STEPS_PER_ROLLOUT)
    stored = model.replay_buffer.size() * N_ENVS
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{stored:,} observations of {obs.shape[1:]} in memory: peak resident memory {peak / 1e9:.2f} GB")
    print(f"SB3's ReplayBuffer, which stores every stack twice, would need {2 * stored * obs[0].nbytes / 1e9:.1f} GB")


if __name__ == "__main__":
    main()
