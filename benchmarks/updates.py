"""
How much a student learns from one recording in a given CPU time, by what its updates are like.

python -m benchmarks.updates --teacher rl-trained-agents/dqn/PongNoFrameskip-v4_1 --recording play/seed0 \\
    --held-out play/seed1 --student Net3Policy --seconds 60 --ideas "" optimizer=Adam batch_size=64,sampling=error

A recording is a folder that ``PolicyDistillation(recording=...)`` wrote; the second one is of another seed. Each idea
is a run with one thread; CPU seconds of its updates are counted, reading and looking are not. Six times in a run,
4,000 observations of the second recording are shown to the student: printed are the share of them at which it chooses
the teacher's action, and by how much the Q-value of its action is below the teacher's best one, on average. These do
not tell everything: with ``--n-games``, the student of each idea also plays, with 5% random actions and the same
starts for all.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from torch.nn import functional as F

from benchmarks.peers import Task
from benchmarks.time_to_teacher import returns_of
from sb3_distill import load_teacher
from sb3_distill.base.augmentation import shifted
from sb3_distill.base.inheritance import inherit_filters
from sb3_distill.base.students import Student
from sb3_distill.buffers.recordings import Recording
from sb3_distill.common.answers import Answers
from sb3_distill.common.files import write_whole
from sb3_distill.common.losses import DistillationLoss
from sb3_distill.networks.policies import STUDENT_POLICIES

N_LOOKS, N_HELD_OUT = 6, 4_000
# By name: the learning rate's factor at a share of the run
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda share: 1.0,
    "linear": lambda share: 1.0 - share,
    "onecycle": lambda share: share / 0.2 if share < 0.2 else 0.5 + 0.5 * math.cos(math.pi * (share - 0.2) / 0.8),
}


@dataclass
class Idea:
    """
    What the updates of a run are like.

    :param optimizer: name of its class
    :param learning_rate: the largest learning rate
    :param schedule: one of ``SCHEDULES``
    :param batch_size: observations of an update
    :param inherits: whether the student begins with filters of its teacher
    :param temperature: temperature of the teacher
    :param sampling: how observations are drawn: "uniform"; "error", by the loss that they had when they were drawn
        last, to the power of 0.7; "close", those with a gap between the teacher's best actions below the median three
        times as often
    :param shift: pixels by which frames are shifted at random
    :param hint: weight of the error with which a linear map of the student's features gives the teacher's (Romero
        et al. 2015, arXiv 1412.6550, Eq. 3; the teacher's divided by their spread in the minibatch)
    :param average: share of the old weights in a moving average that is looked at; 0: the weights themselves
    :param n_observations: how much of the recording is used
    :param seed: seed of the student and the minibatches
    """

    optimizer: str = "Muon"
    learning_rate: float = 1.2e-3
    schedule: str = "linear"
    batch_size: int = 128
    inherits: bool = True
    temperature: float = 0.01
    sampling: str = "uniform"
    shift: int = 0
    hint: float = 0.0
    average: float = 0.0
    n_observations: int = 27_000
    seed: int = 0

    @classmethod
    def parse(cls, text: str) -> "Idea":
        """Settings such as ``batch_size=64,optimizer=Adam``; all others are the defaults."""
        kinds = {field.name: type(getattr(cls(), field.name)) for field in fields(cls)}
        given = dict(pair.split("=") for pair in text.split(",") if pair)
        values: dict[str, Any] = {
            name: value == "True" if kinds[name] is bool else kinds[name](value) for name, value in given.items()
        }
        return cls(**values)


@dataclass
class Play:
    """Observations of a recording, with the teacher's Q-values for them."""

    observations: np.ndarray
    q_values: th.Tensor

    @classmethod
    def read(cls, folder: Path) -> "Play":
        """All of a recording, in memory: 54,000 stacks of four frames take 1.5 GB."""
        recording = Recording(folder)
        rows = range(recording.n_rows)
        answers = [recording.answers(row).preferences for row in rows]
        return cls(np.concatenate([recording.observations(row) for row in rows]), th.as_tensor(np.concatenate(answers)))


class Sampler:
    """Draws observations."""

    def __init__(self, idea: Idea, q_values: th.Tensor) -> None:
        self.idea, self.rng, self.n_drawn = idea, np.random.default_rng(idea.seed), 0
        self.weights = np.ones(len(q_values))
        if idea.sampling == "close":
            best = q_values.topk(2, dim=1).values
            gaps = best[:, 0] - best[:, 1]
            self.weights[(gaps < gaps.median()).numpy()] = 3.0

    def draw(self) -> np.ndarray:
        """Indices of a minibatch."""
        if self.idea.sampling == "uniform":
            return self.rng.integers(len(self.weights), size=self.idea.batch_size)
        if self.n_drawn % 200 == 0:
            self.cumulative = np.cumsum(self.weights / self.weights.sum())
        self.n_drawn += 1
        return np.searchsorted(self.cumulative[:-1], self.rng.random(self.idea.batch_size))

    def note(self, indices: np.ndarray, losses: th.Tensor) -> None:
        """The losses of a minibatch."""
        if self.idea.sampling == "error":
            self.weights[indices] = losses.detach().numpy() ** 0.7 + 1e-3


class Hint:
    """A linear map from the features of a student to those of its teacher, which learns with the student."""

    def __init__(self, policy: Any, teacher: Any) -> None:
        self.teacher = teacher
        student, its = policy.q_net.features_extractor, teacher.policy.q_net.features_extractor
        student.register_forward_hook(lambda module, inputs, features: setattr(self, "features", features))
        self.map = th.nn.Linear(student.features_dim, its.features_dim)
        self.optimizer = th.optim.Adam(self.map.parameters(), lr=1e-3)

    def loss(self, images: th.Tensor) -> th.Tensor:
        """The error at a minibatch that the student has just seen."""
        with th.no_grad():
            policy = self.teacher.policy
            features = policy.extract_features(images, policy.q_net.features_extractor)
        self.optimizer.zero_grad()
        return F.mse_loss(self.map(self.features), features / (features.std() + 1e-6))  # type: ignore[attr-defined]


def run(idea: Idea, args: argparse.Namespace, play: Play, held_out: Play, teacher: Any) -> dict[str, Any]:
    """Train with one idea, and return what the looks at the student have shown, and the returns of its games."""
    play = Play(play.observations[: idea.n_observations], play.q_values[: idea.n_observations])
    th.manual_seed(idea.seed)
    space = spaces.Box(0, 255, play.observations.shape[1:], np.uint8)
    kwargs: dict[str, Any] = {"optimizer_class": idea.optimizer}
    policy = STUDENT_POLICIES[args.student](
        space, spaces.Discrete(play.q_values.shape[1]), lambda _: idea.learning_rate, **kwargs
    )
    student = Student(policy, DistillationLoss("kl", idea.temperature))
    sampler = Sampler(idea, play.q_values)
    student.fit_frame_scalers(th.as_tensor(play.observations[sampler.rng.choice(len(play.observations), 1_000)]))
    if idea.inherits:
        inherit_filters(policy, teacher)
    hint = Hint(policy, teacher) if idea.hint else None
    average = [parameter.detach().clone() for parameter in policy.parameters()]
    looks: list[dict[str, float]] = []
    started, n_updates = time.process_time(), 0
    while len(looks) < N_LOOKS:
        seconds = time.process_time() - started
        for group in policy.optimizer.param_groups:
            group["lr"] = idea.learning_rate * max(SCHEDULES[idea.schedule](min(seconds / args.seconds, 1.0)), 1e-3)
        policy.set_training_mode(True)
        indices = sampler.draw()
        images = th.as_tensor(play.observations[indices])
        if idea.shift:
            images = shifted(images, sampler.rng.integers(-idea.shift, idea.shift + 1, size=(2, len(images))))
        losses = student.loss(Answers(q_values=play.q_values[indices]), policy.answer(images.float()))
        loss = losses.mean()
        if hint is not None:
            loss = loss + idea.hint * hint.loss(images.float())
        student.update(loss)
        if hint is not None:
            hint.optimizer.step()
        sampler.note(indices, losses)
        n_updates += 1
        own = [parameter.detach() for parameter in policy.parameters()]
        th._foreach_lerp_(average, own, 1.0 - min(idea.average, n_updates / (n_updates + 9)))
        seconds = time.process_time() - started
        if seconds >= args.seconds * (len(looks) + 1) / N_LOOKS:
            looks.append({"cpu_seconds": seconds, "n_updates": n_updates, **look(policy, average, held_out)})
            started += time.process_time() - started - seconds
    th._foreach_copy_([parameter.data for parameter in policy.parameters()], average)
    policy.set_training_mode(False)
    task = Task(args.env, args.teacher, "default", 0, args.recording, idea.seed)
    return {"looks": looks, "returns": returns_of(policy, task, 0, args.n_games) if args.n_games else []}


@th.no_grad()
def look(policy: Any, weights: list[th.Tensor], held_out: Play) -> dict[str, float]:
    """Show the observations of the other recording to the student with these weights."""
    policy.set_training_mode(False)
    own = [parameter.clone() for parameter in policy.parameters()]
    th._foreach_copy_(list(policy.parameters()), weights)
    parts = th.as_tensor(held_out.observations).split(500)
    actions = th.cat([policy.answer(part.float()).preferences.argmax(dim=1) for part in parts])
    th._foreach_copy_(list(policy.parameters()), own)
    best = held_out.q_values.max(dim=1)
    lost = best.values - held_out.q_values.gather(1, actions[:, None])[:, 0]
    return {"agreement": (actions == best.indices).float().mean().item(), "lost_value": lost.mean().item()}


def main() -> None:
    """Entry point of ``python -m benchmarks.updates``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", required=True, help="run folder or zip")
    parser.add_argument("--recording", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--student", default="Net3Policy", choices=list(STUDENT_POLICIES))
    parser.add_argument("--seconds", type=float, default=60.0, help="CPU seconds of a run")
    parser.add_argument("--env", default="PongNoFrameskip-v4")
    parser.add_argument("--n-games", type=int, default=0, help="games that each student plays at the end")
    parser.add_argument("--ideas", nargs="+", default=[""], help="settings such as batch_size=64,optimizer=Adam")
    parser.add_argument("--json", type=Path, help="write all looks to this file")
    args = parser.parse_args()
    th.set_num_threads(1)
    ideas = [Idea.parse(text) for text in args.ideas]
    play, held_out = Play.read(args.recording), Play.read(args.held_out)
    chosen = np.random.default_rng(0).choice(len(held_out.observations), N_HELD_OUT, replace=False)
    held_out = Play(held_out.observations[chosen], held_out.q_values[chosen])
    teacher = load_teacher(args.teacher, device="cpu")
    found = []
    for text, idea in zip(args.ideas, ideas, strict=True):
        outcome = run(idea, args, play, held_out, teacher)
        found.append({"idea": asdict(idea), **outcome})
        looks, returns = outcome["looks"], outcome["returns"]
        half, end = looks[N_LOOKS // 2 - 1], looks[-1]
        print(
            f"{text or 'defaults'}: {end['n_updates']} updates, agreement {half['agreement']:.3f} at half of the time "
            f"and {end['agreement']:.3f} at its end, lost value {1e3 * end['lost_value']:.2f} thousandths"
            + (f", mean return {np.mean(returns):.2f} in {len(returns)} games" if returns else ""),
            flush=True,
        )
        if args.json:
            write_whole(args.json, json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
