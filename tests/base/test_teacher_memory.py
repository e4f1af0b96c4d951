"""A teacher with a memory sees the play as it happens, whoever acts, and begins anew where an episode does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv

from sb3_distill import QPD, Answers, PolicyDistillation, ProximalPolicyDistillation, load_teacher
from sb3_distill.agents.files import AgentError
from sb3_distill.base.resume.resuming import RUN_STATE
from sb3_distill.buffers.recordings import Recording
from sb3_distill.evaluation.play import evaluate_paired
from sb3_distill.mtpd.teachers import MultiTaskTeacher
from sb3_distill.networks.frozen import hash_weights
from tests.agents.own_teachers import Counter
from tests.envs.tasks import make_env as make_tasks
from tests.mtpd.students import make as make_mtpd

QUICK: dict[str, Any] = {"n_teacher_episodes": 0, "device": "cpu", "seed": 0}
OFF_POLICY: dict[str, Any] = {**QUICK, "learning_starts": 32, "buffer_size": 400}


NO_CRITIC = {**OFF_POLICY, "value_coef": 0.0}


class Watch(BaseCallback):
    """Counts the steps of the episodes, and takes down what the teacher says that they are."""

    def __init__(self) -> None:
        super().__init__()
        self.counted: list[np.ndarray] = []
        self.said: list[np.ndarray] = []

    def _on_step(self) -> bool:
        starts = self.model._last_episode_starts  # type: ignore[attr-defined]
        self.counted.append(np.where(starts, 0, self.counted[-1] + 1 if self.counted else 0))
        if "record" in self.locals:
            answers = self.locals["record"].answers
            several = [answers] if isinstance(answers, Answers) else [answers.of_env(env) for env in range(len(starts))]
            self.said.append(np.concatenate([each.preferences[:, 0] for each in several]))
        else:
            self.said.append(self.model._asked.answers[-1].preferences[:, 0].numpy())  # type: ignore[attr-defined]
        return True

    def check(self) -> None:
        assert np.array_equal(self.counted, self.said)
        n_begun = (np.array(self.counted) == 0).sum()
        assert n_begun > 2 * len(self.counted[0])


def cartpole(n_envs: int = 3) -> VecEnv:
    return make_vec_env("CartPole-v1", n_envs, seed=0)


def pd(rollout_policy: str = "teacher", **kwargs: Any) -> PolicyDistillation:
    return PolicyDistillation(
        "MlpPolicy", cartpole(), Counter(), rollout_policy=rollout_policy, **{**OFF_POLICY, **kwargs}
    )


def mtpd(rollout_policy: str) -> Any:
    tasks = make_tasks(3)
    teachers = {"CartPole-v1": Counter(), "MountainCar-v0": Counter(spaces.Box(-2, 2, (2,)), 3)}
    return make_mtpd(teachers, tasks, rollout_policy=rollout_policy, learning_starts=32)


MODELS: dict[str, Callable[[str], Any]] = {
    "pd": pd,
    "qpd": lambda who: QPD("MlpPolicy", cartpole(), Counter(), temperature=1.0, rollout_policy=who, **NO_CRITIC),
    "mtpd": mtpd,
}


@pytest.mark.parametrize("who", ["teacher", "student"])
@pytest.mark.parametrize("name", MODELS)
def test_its_memory_runs_along(name: str, who: str) -> None:
    watch = Watch()
    model = MODELS[name](who)
    model.learn(300, callback=watch)
    # A second call goes on in the middle of episodes.
    model.learn(90, callback=watch, reset_num_timesteps=False)
    if name == "mtpd":
        # MountainCar's first episode has no end within this time.
        assert np.array_equal(watch.counted, watch.said)
        assert model._teacher_state.keys() == {"CartPole-v1", "MountainCar-v0"}
    else:
        watch.check()


def test_in_ppd_too() -> None:
    watch = Watch()
    model = ProximalPolicyDistillation(
        "MlpPolicy", cartpole(), Counter(), n_steps=40, batch_size=40, temperature=1.0, **QUICK
    )
    model.learn(240, callback=watch)
    model.learn(120, callback=watch, reset_num_timesteps=False)
    watch.check()


def test_a_recording_holds_what_it_said(tmp_path: Path) -> None:
    watch = Watch()
    pd(recording=tmp_path / "play").learn(300, callback=watch)
    watch.check()
    recording = Recording(tmp_path / "play")
    assert np.array_equal(recording.columns["answers_q_values"][..., 0], watch.said)
    read = Watch()
    pd(recording=tmp_path / "play").learn(300, callback=read)
    read.check()


def test_it_plays_with_its_memory() -> None:
    teacher = load_teacher(Counter(), device="cpu")
    assert teacher.has_memory
    score = evaluate_paired(teacher, lambda n_envs: make_vec_env("Parity-v0", n_envs), 10, n_envs=4)
    assert score.returns == score.lengths and len(set(score.lengths)) > 1
    model = PolicyDistillation(
        "MlpPolicy", make_vec_env("Parity-v0", 2), Counter(), **{**OFF_POLICY, "n_teacher_episodes": 6}
    ).learn(40)
    # Episodes of different lengths pay 3 on average to those alone who know the step in all of them.
    assert model._reference is not None and model._reference.score is not None
    assert model._reference.score[0] >= 3 and model._reference.score[1] > 0


def test_an_agent_of_several_tasks_plays_with_the_memory_of_each() -> None:
    tasks = make_tasks(2).envs[0].unwrapped.tasks  # type: ignore[attr-defined]
    own = {"CartPole-v1": Counter(), "MountainCar-v0": Counter(spaces.Box(-2, 2, (2,)), 3)}
    several = MultiTaskTeacher({name: load_teacher(each, device="cpu") for name, each in own.items()}, tasks)
    state = None
    # Which task each environment plays, where an episode begins, and its step
    for which, starts, expected in (
        ([0, 1], [True, True], [0, 0]),
        ([0, 1], [False, False], [1, 1]),
        ([0, 0], [False, True], [2, 0]),
        ([1, 0], [True, False], [0, 1]),
        ([1, 0], [False, False], [1, 2]),
    ):
        obs = {"obs": th.zeros(2, 4), "task": th.tensor(which)}
        answers, state = several.answer(obs, state, np.array(starts))
        assert answers.preferences[:, 0].tolist() == expected


@pytest.mark.parametrize("name", ["pd", "mtpd", "ppd"])
def test_a_run_that_was_stopped_goes_on_with_the_memory(name: str, tmp_path: Path) -> None:
    def make() -> Any:
        if name == "ppd":
            return ProximalPolicyDistillation(
                "MlpPolicy", cartpole(), Counter(), n_steps=20, batch_size=20, temperature=1.0, **QUICK
            )
        return MODELS[name]("student")

    whole = make()
    whole.learn(360)
    stopped = make()
    stopped.learn(180, callback=CheckpointCallback(20, str(tmp_path)))
    state = tmp_path / RUN_STATE
    assert state.is_file()
    resumed = make()
    resumed.load_run_state(state)
    resumed.learn(360 - resumed.num_timesteps)
    assert resumed.num_timesteps == whole.num_timesteps
    assert hash_weights(resumed.policy) == hash_weights(whole.policy)
    assert repr(resumed._teacher_state) == repr(whole._teacher_state) != "None"


def test_another_teacher_begins_anew_and_refuses_a_state_that_is_not_its_own() -> None:
    model = pd().learn(60)
    assert model._teacher_state is not None
    other = Counter()
    other.answer = lambda obs, state, starts: (  # type: ignore[method-assign]
        Answers(q_values=np.zeros((len(obs), 2))),
        (np.zeros((len(obs), 2, 5)),),
    )
    model.teacher = other
    with pytest.warns(UserWarning, match="goes on with another one"):
        model.learn(30, reset_num_timesteps=False)
    teacher = load_teacher(other, device="cpu")
    for state, message in (
        ({"steps": np.zeros(3)}, r"shapes .*it is another agent's"),
        ((np.zeros((2, 2, 5)),), "first axis must be that of the 3 environments"),
    ):
        with pytest.raises(AgentError, match=message):
            teacher.answer(th.zeros(3, 4), state, np.zeros(3, bool))
