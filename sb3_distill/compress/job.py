"""Teaches and scores the students of one run: ``python -m sb3_distill.compress.job FOLDER [PIPE]``."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import Schedule

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.files import ZOO_STATISTICS
from sb3_distill.agents.load import load_teacher
from sb3_distill.base.callbacks import save_statistics
from sb3_distill.common.files import write_whole
from sb3_distill.common.log import hidden_messages
from sb3_distill.common.losses import compare_actions
from sb3_distill.common.schedules import read_schedule
from sb3_distill.common.utils import unchanged_randomness
from sb3_distill.compress.candidates import Params, Space, kind_of
from sb3_distill.compress.play import RECIPE, normalize
from sb3_distill.compress.view import StudentView, View, make_students_env, show, students_space
from sb3_distill.envs.imports import trust_packages
from sb3_distill.envs.recipe import EnvRecipe
from sb3_distill.evaluation.environments import make_env_of
from sb3_distill.evaluation.loading import load_player
from sb3_distill.evaluation.play import Score, evaluate_paired
from sb3_distill.qpd.qpd import QPD
from sb3_distill.results.tables import to_json
from sb3_distill.study.job import end_with
from sb3_distill.study.manifest import MANIFEST, SETTINGS

# Episodes that are played side by side
N_ENVS = 25
# Shares of the run after which students are compared with the teacher: at full precision, and at the final one
CHECKS = (0.4, 0.7)
# Below what better students had, by this much: a bad one
SLACK = 0.05
# How a student learns, as in hyperparams/qpd.yml
_LEARNING: dict[str, dict[str, Any]] = {
    "vector": {"batch_size": 256, "train_freq": 8, "gradient_steps": 16},
    "frames": {"batch_size": 32, "train_freq": 27, "gradient_steps": 40},
    "grid": {"batch_size": 64, "train_freq": 8, "gradient_steps": 8},
}


@dataclass(frozen=True)
class Settings:
    """
    What decides the outcome of a run.

    :param teacher: where the agent is that is compressed
    :param sha256: its hash
    :param env_id: the environment
    :param gym_packages: packages that are imported first
    :param seed: seed of the run
    :param n_timesteps: length of the run
    :param students: choices from the space, one for each student
    :param temperature: see ``Space``
    :param bars: for each of ``CHECKS``, the agreement with the teacher below which a student is stopped; empty: none
    :param n_episodes: episodes of each score
    :param first_seed: seed of the first of them
    :param teacher_kwargs: what is said of an ONNX file beside it
    :param statistics: by which observations are normalized, see ``statistics_of``; None: they are not
    :param view: see ``View``
    :param recipe: see ``RECIPE``
    """

    teacher: str
    sha256: str
    env_id: str
    gym_packages: Sequence[str]
    seed: int
    n_timesteps: int
    students: Sequence[Params]
    temperature: float | None
    bars: Sequence[float] = ()
    n_episodes: int = 30
    first_seed: int = 0
    teacher_kwargs: Mapping[str, Any] = field(default_factory=dict)
    statistics: Mapping[str, Any] | None = None
    view: Mapping[str, Any] = field(default_factory=dict)
    recipe: int = RECIPE


@dataclass(frozen=True)
class Outcome:
    """
    What came of one student.

    :param params: its choice from the space
    :param n_bytes: bytes of what acts
    :param agreement: how much it agreed with the teacher at each of ``CHECKS``, from 0 to 1
    :param stopped: why it was stopped early; empty: it was not
    :param returns: returns of its episodes; empty if it was stopped
    :param traces: hashes of its episodes
    :param zip: its file, below the search's folder; empty if it was stopped
    :param seconds: seconds that its run took, with all students
    :param learning_seconds: of these, until all had learned
    """

    params: Params
    n_bytes: int
    agreement: Sequence[float] = ()
    stopped: str = ""
    returns: Sequence[float] = ()
    traces: Sequence[str] = ()
    zip: str = ""
    seconds: float = 0.0
    learning_seconds: float = 0.0


def score(agent: Teacher, env_id: str, n_episodes: int, first_seed: int) -> Score:
    """
    :param agent: an agent
    :param env_id: the environment
    :param n_episodes: number of episodes
    :param first_seed: seed of the first one
    :return: what it scores, greedily
    """
    make_env = partial(make_env_of, agent, env_id, native=None)
    return evaluate_paired(agent, make_env, n_episodes, seed=first_seed, n_envs=N_ENVS)


@dataclass
class Check:
    """
    What a check knows of a student.

    :param n_bytes: bytes of what acts
    :param agreement: its agreement at the checks so far
    :param stopped: why it was stopped
    """

    n_bytes: int
    agreement: list[float] = field(default_factory=list)
    stopped: str = ""


class StoppingCallback(BaseCallback):
    """
    Compares all students of a run with their teacher at ``CHECKS``, and drops further students that are bad: those
    below the bar of earlier runs, and at the final precision those than which a student of no more bytes agrees more.
    The first student stays.

    :param students: by name, the students; the first is that of the model
    :param bars: see ``Settings``
    """

    def __init__(self, students: dict[str, Check], bars: Sequence[float]) -> None:
        super().__init__()
        self.students = students
        self.bars = bars
        self.done = 0

    def _on_step(self) -> bool:
        return True

    @th.no_grad()
    def _on_rollout_start(self) -> None:
        model: Any = self.model
        progress = 1.0 - model._current_progress_remaining
        if self.done == len(CHECKS) or progress < CHECKS[self.done] or model._n_updates == 0:
            return
        # The students learn as they would without the check.
        with unchanged_randomness():
            samples = model.replay_buffer.sample(1_000, env=model._normalizer)
        first = next(iter(self.students))
        left = {name: check for name, check in self.students.items() if not check.stopped}
        for name, check in left.items():
            student = model if name == first else model.student_model(name)
            student.policy.set_training_mode(False)
            own = student.policy.answer(samples.observations)
            found = compare_actions(samples.answers, own, model.action_space)
            check.agreement.append(
                float(found["agreement"]) if "agreement" in found else 1.0 - float(found["action_distance"])
            )
        for name, check in left.items():
            if name != first:
                check.stopped = self._problem(check, list(left.values()))
                if check.stopped:
                    model.drop_student(name)
        self.done += 1

    def _problem(self, own: Check, others: list[Check]) -> str:
        agreement = own.agreement[-1]
        if len(self.bars) > self.done and agreement < self.bars[self.done] - SLACK:
            return (
                f"agreed with the teacher at {agreement:.2f}, students that keep enough had {self.bars[self.done]:.2f}"
            )
        if self.done == len(CHECKS) - 1:
            better = [each for each in others if each.n_bytes <= own.n_bytes and each is not own]
            best = max((each.agreement[-1] for each in better), default=0.0)
            if agreement < best - SLACK:
                return f"agreed with the teacher at {agreement:.2f}, a student of no more bytes at {best:.2f}"
        return ""


def learning_rate(space: Space, params: Params) -> Schedule:
    """
    :param space: what students are chosen from
    :param params: a choice
    :return: the learning rate of this student. Few weights need large steps: without quantization, on 6,400 recorded
        observations of CartPole, a linear student agrees with the teacher after 750 updates at 87% of them with 3e-2,
        at 80% with 3e-3 (one seed). With the width of the layers they fall, as those of Adam should (Yang et al. 2022,
        Tensor Programs V, table 3).
    """
    if space.kind != "vector":
        return read_schedule("lin_1e-3")
    width = max((params[f"width_{layer}"] for layer in range(1, params["depth"] + 1)), default=1)
    return read_schedule(f"lin_{0.02 * min(1.0, 8 / width)}")


def learn_together(
    settings: Settings, teacher: Teacher, space: Space, seen: StudentView
) -> tuple[QPD, dict[str, Check]]:
    """
    :param settings: the run
    :param teacher: the teacher
    :param space: what its students were chosen from
    :param seen: what they see
    :return: the model with those students that were not stopped, and what is known of each, in order
    """
    names = [f"student{index}" for index in range(len(settings.students))]
    entries = [{**space.entries(params), "learning_rate": learning_rate(space, params)} for params in settings.students]
    students = {name: Check(space.n_bytes(params)) for name, params in zip(names, settings.students, strict=True)}
    env = make_students_env(teacher, settings.env_id, seen, max(len(names), 8))
    if settings.statistics is not None:
        env = normalize(env, settings.statistics, seen.keys)
    try:
        model = QPD(
            env=env,
            teacher=teacher,
            buffer_size=settings.n_timesteps,
            learning_starts=min(1_000, settings.n_timesteps // 10),
            value_coef=0.0,
            n_teacher_episodes=0,
            # The student's file says them beside its teacher.
            teacher_kwargs=settings.teacher_kwargs or None,
            allow_env_mismatch=True,
            teacher_keys=teacher.facts.student_keys,
            student_keys=seen.keys,
            students=dict(zip(names[1:], entries[1:], strict=True)) or None,
            seed=settings.seed,
            device="cpu",
            **_LEARNING[space.kind],
            **entries[0],
        )
        model.learn(settings.n_timesteps, StoppingCallback(students, settings.bars), log_interval=None)  # type: ignore[arg-type]
    finally:
        env.close()
    return model, students


@hidden_messages()
def load_student(source: Path | BaseAlgorithm, recipe: EnvRecipe) -> Teacher:
    """
    :param source: a student, or its zip, neither of which says how its environment was made
    :param recipe: this
    :return: the student, which plays in such environments
    """
    student = load_teacher(source, device="cpu")
    student.facts = replace(student.facts, recipe=recipe)
    return student


def run(folder: Path) -> None:
    """
    Teach and score the students of a run, and write its manifest, which is written last: it marks the run as finished.

    :param folder: the run's folder, with its settings
    """
    start = time.time()
    settings = Settings(**json.loads((folder / SETTINGS).read_text()))
    trust_packages(settings.gym_packages)
    teacher = load_player(settings.teacher, settings.env_id, settings.teacher_kwargs, device="cpu")
    # It has been scored in these environments: where it has no statistics, it is known to see raw observations.
    seen = show(teacher, settings.env_id, View(**settings.view))
    observed = students_space(teacher, settings.env_id, seen)
    is_normalized = settings.statistics is not None
    space = Space(kind_of(observed), observed, teacher.action_space, settings.temperature, is_normalized)
    model, checks = learn_together(settings, teacher, space, seen)
    learned = time.time()
    statistics = model.get_vec_normalize_env()
    if statistics is not None:
        # Beside the zips, where an agent's statistics are looked for
        save_statistics(statistics, folder / ZOO_STATISTICS)
    outcomes = []
    for (name, check), params in zip(checks.items(), settings.students, strict=True):
        found: dict[str, Any] = {}
        if not check.stopped:
            path = folder / f"{name}.zip"
            student = model.student_model(name) if name in model.students else model
            student.env_id = settings.env_id
            student.save(path)
            own = load_student(student, seen.recipe)
            played = score(own, settings.env_id, settings.n_episodes, settings.first_seed)
            found = {"returns": played.returns, "traces": played.traces, "zip": path.name}
        outcomes.append(Outcome(params, **asdict(check), **found))
    times = {"seconds": time.time() - start, "learning_seconds": learned - start}
    write_whole(folder / MANIFEST, to_json([{**asdict(outcome), **times} for outcome in outcomes]))


def read_outcomes(folder: Path) -> list[Outcome]:
    """
    :param folder: folder of a run that has finished
    :return: what came of its students
    """
    content: list[Mapping[str, Any]] = json.loads((folder / MANIFEST).read_text())
    return [Outcome(**{**each, "zip": each["zip"] and f"{folder.name}/{each['zip']}"}) for each in content]


if __name__ == "__main__":
    if len(sys.argv) > 2:
        end_with(int(sys.argv[2]))
    run(Path(sys.argv[1]))
