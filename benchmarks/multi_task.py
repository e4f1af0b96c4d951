"""Speed and memory of multi-task distillation, compared with single-task distillation with the same trunk.

``python -m benchmarks.multi_task`` prints the ratio of their wall-clock times per update, measured alternately on the
same frames, and the resident memory of a replay buffer with ten games of 54,000 frames each.
"""

import argparse
import json
import resource
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces

from benchmarks.records import step_record
from sb3_distill.base.students import student_model
from sb3_distill.buffers.tasks import MultiTaskDistillationBuffer
from sb3_distill.common.answers import Answers, TaskAnswers
from sb3_distill.common.files import write_whole
from sb3_distill.envs.multitask import Task
from sb3_distill.mtpd.mtpd import MultiTaskDistillation
from sb3_distill.networks.multi_task import MultiTaskCnnPolicy
from sb3_distill.networks.policies import CnnPolicy

TASK_ACTIONS = {"Freeway": 3, "Pong": 3, "Qbert": 6}
FRAMES = spaces.Box(0, 255, (4, 84, 84), np.uint8)


def fill(buffer: Any, n_actions: int | Sequence[int], n_steps: int) -> None:
    """Fill a replay buffer with random frames of one game, or of several games, one after the other."""
    rng = np.random.default_rng(0)
    for index, n in enumerate([n_actions] if isinstance(n_actions, int) else n_actions):
        task = np.array([index])
        stack = np.zeros((1, *FRAMES.shape), dtype=np.uint8)
        for _ in range(n_steps):
            stack = np.roll(stack, -1, axis=1)
            stack[0, -1] = rng.integers(0, 255, size=FRAMES.shape[1:], dtype=np.uint8)
            own = Answers(q_values=rng.normal(size=(1, n)).astype(np.float32))
            obs: Any = stack if isinstance(n_actions, int) else {"obs": stack, "task": task}
            answers = own if isinstance(n_actions, int) else TaskAnswers(task, {index: own})
            buffer.add(step_record(obs, answers))


def make_single() -> Any:
    """Single-task distillation with the same trunk and hidden layer as the multi-task student."""
    kwargs = {"net_arch": [128]}
    model: Any = student_model(CnnPolicy, kwargs, FRAMES, spaces.Discrete(6), "cpu")
    fill(model.replay_buffer, 6, 2_000)
    return model


def make_multi() -> MultiTaskDistillation:
    """Multi-task distillation of three games."""
    space = spaces.Dict({"obs": FRAMES, "task": spaces.Discrete(len(TASK_ACTIONS))})
    model = MultiTaskDistillation(
        MultiTaskCnnPolicy,
        None,  # type: ignore[arg-type]
        policy_kwargs={"task_actions": list(TASK_ACTIONS.values())},
        device="cpu",
        _init_setup_model=False,
    )
    model.observation_space, model.action_space, model.n_envs = space, spaces.Discrete(max(TASK_ACTIONS.values())), 1
    model.tasks = [Task(name, f"{name}NoFrameskip-v4", FRAMES, n) for name, n in TASK_ACTIONS.items()]
    model._setup_model()
    fill(model.replay_buffer, list(TASK_ACTIONS.values()), 2_000)
    return model


def prepare(model: Any) -> None:
    """Do what ``learn`` does before the first update, and two updates to warm up."""
    from stable_baselines3.common.logger import Logger

    model.set_logger(Logger(None, []))
    model.train(2, 32)


def main() -> None:
    """Entry point of ``python -m benchmarks.multi_task``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15, help="rounds of 10 updates per model")
    parser.add_argument("--n-frames", type=int, default=54_000, help="frames per game (of ten games)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()

    th.manual_seed(0)
    models = {"single": make_single(), "multi": make_multi()}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for model in models.values():
        prepare(model)
    for _ in range(args.repeats):
        for name, model in models.items():
            start = time.perf_counter()
            model.train(10, 32)
            seconds[name].append((time.perf_counter() - start) / 10)
    ratio = statistics.median(multi / single for single, multi in zip(*seconds.values(), strict=True))
    figures: dict[str, Any] = {f"{name}_update_ms": 1e3 * statistics.median(values) for name, values in seconds.items()}
    del models, model

    space = spaces.Dict({"obs": FRAMES, "task": spaces.Discrete(10)})
    buffer = MultiTaskDistillationBuffer(args.n_frames, space, spaces.Discrete(18), "cpu")
    fill(buffer, [18] * 10, args.n_frames)
    figures |= {"ratio": ratio, "rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    print(
        f"an update of 32: single-task {figures['single_update_ms']:.2f} ms, multi-task "
        f"{figures['multi_update_ms']:.2f} ms, ratio {ratio:.2f}; ten games with {args.n_frames} frames each: "
        f"{figures['rss_bytes'] / 1e9:.2f} GB resident for the process"
    )
    if args.json:
        write_whole(args.json, json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
