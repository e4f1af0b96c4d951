"""CPU time of the updates of three students that learn together, compared with each alone.

``python -m benchmarks.students`` measures net1, net2 and net3 on frames, together and each alone, alternately in one
process. It prints the CPU seconds, and two ratios of those together: to the sum of all alone, and to net1 alone (its
minibatches are then everybody's) plus what the others' updates cost without drawing minibatches.
"""

import argparse
import statistics
import time

import torch as th

from benchmarks.records import fill_with_frames
from sb3_distill import PolicyDistillation
from sb3_distill.common.answers import Answers

POLICIES = ("Net1Policy", "Net2Policy", "Net3Policy")
N_UPDATES, BATCH_SIZE = 10, 32


def make(*policies: str) -> PolicyDistillation:
    """Students with random frames in their replay buffer."""
    model = PolicyDistillation(
        PolicyDistillation.policy_aliases[policies[0]],  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
        buffer_size=500,
        learning_starts=1,
        init_from_teacher=False,
        bf16=False,
        students=list(policies[1:]) or None,
        device="cpu",
        seed=0,
        _init_setup_model=False,
    )
    fill_with_frames(model, 6, lambda outputs: Answers(q_values=outputs), BATCH_SIZE)
    return model


def main() -> None:
    """Entry point of ``python -m benchmarks.students``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10, help=f"rounds of {N_UPDATES} updates per model")
    args = parser.parse_args()
    models = {policy: make(policy) for policy in POLICIES} | {"together": make(*POLICIES)}
    seconds: dict[str, list[float]] = {name: [] for name in [*models, "minibatches"]}
    for _ in range(args.repeats):
        for name, model in models.items():
            start = time.process_time()
            model.train(N_UPDATES, BATCH_SIZE)
            seconds[name].append(time.process_time() - start)
        start = time.process_time()
        for _ in range(N_UPDATES):
            models["together"].replay_buffer.sample(BATCH_SIZE)
        seconds["minibatches"].append(time.process_time() - start)
    for name, values in seconds.items():
        print(f"{name}: {1_000 * statistics.median(values) / N_UPDATES:.2f} ms of CPU per update")
    rounds = list(zip(*seconds.values(), strict=True))
    to_sum = [both / sum(alone) for *alone, both, _ in rounds]
    to_largest = [both / (sum(alone) - drawn * (len(POLICIES) - 1)) for *alone, both, drawn in rounds]
    print(f"together / all alone: {statistics.median(to_sum):.3f} (median of {args.repeats} rounds)")
    print(f"together / largest alone and the others' updates: {statistics.median(to_largest):.3f}")
    print(f"{th.get_num_threads()} threads")


if __name__ == "__main__":
    main()
