"""Time of an update at the final precision, compared with a full-precision update of the same network.

``python -m benchmarks.qpd_update`` measures both alternately, and prints the ratio of their wall-clock times for net1
to net3 at 8 and 4 bits.
"""

import argparse
import statistics
import time

import torch as th

from benchmarks.records import fill_with_frames
from sb3_distill import QPD
from sb3_distill.common.answers import Answers
from sb3_distill.networks.actor_critic_policies import ACTOR_CRITIC_POLICIES


def make(policy: str, bits: int | None) -> QPD:
    """A student with random frames in its replay buffer; with ``bits``, it is at its final precision."""
    model = QPD(
        ACTOR_CRITIC_POLICIES[policy],
        None,  # type: ignore[arg-type]
        buffer_size=500,
        learning_starts=1,
        weight_bits=bits,
        activation_bits=bits,
        # The student has its final precision during the whole run.
        full_precision_fraction=0.0,
        final_fraction=1.0,
        device="cpu",
        seed=0,
        _init_setup_model=False,
    )
    fill_with_frames(model, 7, lambda outputs: Answers(log_probs=outputs[:, :6], values=outputs[:, 6]), 32)
    return model


def main() -> None:
    """Entry point of ``python -m benchmarks.qpd_update``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10, help="rounds of 10 updates per model")
    args = parser.parse_args()
    th.manual_seed(0)
    for policy in ("Net1Policy", "Net2Policy", "Net3Policy"):
        models = {bits: make(policy, bits) for bits in (None, 8, 4)}
        seconds: dict[int | None, list[float]] = {bits: [] for bits in models}
        for _ in range(args.repeats):
            for bits, model in models.items():
                start = time.perf_counter()
                model.train(10, 32)
                seconds[bits].append((time.perf_counter() - start) / 10)
        full = 1e3 * statistics.median(seconds[None])
        ratios = [
            f"{statistics.median(few / whole for few, whole in zip(seconds[bits], seconds[None], strict=True)):.2f}"
            for bits in (8, 4)
        ]
        print(f"{policy}: full precision {full:.1f} ms; at 8 bits {ratios[0]} times, at 4 bits {ratios[1]} times")


if __name__ == "__main__":
    main()
