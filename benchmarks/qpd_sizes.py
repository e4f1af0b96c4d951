"""Return over size (figure 1 of Avé et al. 2022) of QPD and post-training quantization, for widths, bits and seeds.

Of a teacher with Q-values, what is quantized after training is a student of ``pd``.

``python -m benchmarks.qpd_sizes --teacher rl-trained-agents/ppo/CartPole-v1_1 -o docs/figures/qpd_cartpole.png``
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from sb3_distill import QPD, PolicyDistillation, load_teacher
from sb3_distill.agents.agent import Teacher
from sb3_distill.common.files import write_whole
from sb3_distill.envs.make import make_eval_env
from sb3_distill.evaluation.play import evaluate_paired
from sb3_distill.evaluation.players import Player
from sb3_distill.export.post_training import quantize_agent
from sb3_distill.results.figures import add_legend, clip_outliers, make_axes, marker_style, save_figure, scale_by_size


def distil(
    args: argparse.Namespace, teacher: Teacher, width: int, seed: int, bits: int | None
) -> QPD | PolicyDistillation:
    """Train one student; ``bits=None`` is full precision."""
    shared: dict[str, Any] = {
        "learning_rate": 2e-3,
        "gradient_steps": 4,
        "n_teacher_episodes": 0,
        "seed": seed,
        "batch_size": 64,
    }
    if bits is None and not teacher.has_distribution:
        return PolicyDistillation(
            "MlpPolicy",
            args.env,
            teacher,
            temperature="auto",
            policy_kwargs={"net_arch": [width], "activation_fn": nn.Tanh},
            device="cpu",
            **shared,
        ).learn(args.n_steps)
    quantization: dict[str, Any] = {"weight_bits": None}
    if bits is not None:
        quantization = {key: bits for key in ("weight_bits", "activation_bits", "first_layer_bits", "last_layer_bits")}
        quantization["quantization_schedule"] = args.schedule
    model = QPD(
        "MlpPolicy",
        args.env,
        teacher,
        temperature=args.temperature,
        value_coef=args.value_coef,
        policy_kwargs={"net_arch": {"pi": [width], "vf": [16]}},
        device="cpu",
        **shared,
        **quantization,
    )
    return model.learn(args.n_steps)


def draw(cells: list[dict[str, Any]], output: Path) -> None:
    """Write the results so far, as a figure and as JSON."""
    write_whole(output.with_suffix(".json"), json.dumps(cells, indent=2) + "\n")
    figure, axes = make_axes("bytes of the student's policy", "% of the teacher's return")
    labels = {"full": "float32", "qpd": "QPD", "ptq": "quantized after training"}
    points: list[tuple[float, float]] = []
    for index, (method, label) in enumerate(labels.items()):
        settings = sorted({(cell["bytes"], cell["width"], cell["bits"]) for cell in cells if cell["method"] == method})
        means, spreads = [], []
        for _, width, bits in settings:
            percents = [
                cell["percent"]
                for cell in cells
                if (cell["method"], cell["width"], cell["bits"]) == (method, width, bits)
            ]
            means.append(np.mean(percents))
            spreads.append(np.std(percents))
        sizes = [size for size, _, _ in settings]
        points += zip(sizes, map(float, means), strict=True)
        axes.errorbar(sizes, means, spreads, **marker_style(index), markersize=4, linestyle="none", label=label)
    scale_by_size(axes)
    clip_outliers(axes, points, [100.0])
    add_legend(figure, below=True, ncols=3)
    save_figure(figure, output)


def main() -> None:
    """Entry point of ``python -m benchmarks.qpd_sizes``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--teacher", required=True, help="run folder or zip of an agent with discrete actions")
    parser.add_argument("--widths", type=int, nargs="+", default=[4, 8, 16], help="units of the student's hidden layer")
    parser.add_argument("--bits", type=int, nargs="+", default=[8, 4, 3, 2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--n-steps", type=int, default=30_000)
    parser.add_argument("--n-episodes", type=int, default=100)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--value-coef", type=float, default=0.001)
    parser.add_argument("--schedule", default="bits", choices=["bits", "blend"])
    parser.add_argument("-o", "--output", type=Path, help="figure; the numbers go into a .json file of the same name")
    args = parser.parse_args()

    make_env: Callable[[int], VecEnv] = lambda n_envs: make_eval_env(args.env, n_envs)  # noqa: E731
    teacher = load_teacher(args.teacher, device="cpu")
    teacher_score = evaluate_paired(teacher, make_env, args.n_episodes)
    teacher_bytes = teacher.n_bytes
    print(f"teacher: {teacher_bytes:,} bytes, {teacher_score.mean:.2f} ± {teacher_score.std:.2f}", flush=True)
    cells: list[dict[str, Any]] = []

    def note(method: str, width: int, bits: int, seed: int, n_bytes: int, player: Player) -> None:
        score = evaluate_paired(player, make_env, args.n_episodes)
        percent = score.percent_of(teacher_score)
        cells.append(
            {"method": method, "width": width, "bits": bits, "seed": seed, "bytes": n_bytes, "percent": percent}
        )
        print(
            f"{method:>5} width {width:2d}, {bits:2d} bits, seed {seed}: {n_bytes:5,} bytes "
            f"({n_bytes / teacher_bytes:.2%} of the teacher), {score.mean:.2f}, {percent:.1f}%",
            flush=True,
        )

    for width in args.widths:
        for seed in args.seeds:
            full = distil(args, teacher, width, seed, None)
            note("full", width, 32, seed, load_teacher(full).n_bytes, full)
            for bits in args.bits:
                few = distil(args, teacher, width, seed, bits)
                note("qpd", width, bits, seed, load_teacher(few).n_bytes, few)
                after = quantize_agent(full, bits, bits)
                note("ptq", width, bits, seed, after.n_bytes, after)
            if args.output is not None:
                draw(cells, args.output)


if __name__ == "__main__":
    main()
