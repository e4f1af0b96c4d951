"""Several tasks with Dict observations: teachers and student see keys of their own."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from gymnasium.envs.registration import WrapperSpec
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_vec_env

from sb3_distill import MultiTaskDistillation, MultiTaskDQN, PolicyDistillation, load_teacher
from sb3_distill.cli import main
from tests.envs.tasks import IDS
from tests.mtpd.students import KWARGS

KEYS: dict[str, Any] = {"teacher_keys": "state", "student_keys": "positions"}
SEEN = [f"Seen{env_id}" for env_id in IDS]


@pytest.fixture(autouse=True)
def registered() -> Any:
    """The two tasks, with the last positions as a further key."""
    for name, env_id, entry in zip(SEEN, IDS, (2, 0), strict=True):
        spec = gym.spec(env_id)
        kwargs = {"entries": [entry], "n_stack": 2 + entry, "key": "positions"}
        wrapper = WrapperSpec("StackedEntries", "sb3_distill.envs.wrappers.keys:StackedEntries", kwargs)
        gym.register(
            name, spec.entry_point, max_episode_steps=60, additional_wrappers=(wrapper,), kwargs=dict(spec.kwargs)
        )
    yield
    for name in SEEN:
        del gym.registry[name]


@pytest.fixture(scope="module")
def agents() -> dict[str, DQN]:
    kwargs: dict[str, Any] = {"buffer_size": 10, "device": "cpu", "policy_kwargs": {"net_arch": [8]}}
    return {f"Seen{env_id}": DQN("MlpPolicy", env_id, seed=1, **kwargs) for env_id in IDS}


def make_env(pad: bool = True) -> Any:
    return make_vec_env("MultiTask-v0", 2, seed=0, env_kwargs={"env_ids": SEEN, "pad": pad})


def make(agents: dict[str, DQN], **kwargs: Any) -> MultiTaskDistillation:
    settings = {"policy": "MultiTaskMlpPolicy", **KWARGS, **KEYS, "allow_env_mismatch": True, **kwargs}
    return MultiTaskDistillation(env=make_env(), teachers=agents, **settings)


def test_tasks_are_seen_by_keys(agents: dict[str, DQN], tmp_path: Path) -> None:
    model = make(agents, n_eval_episodes=2, rollout_policy="linear").learn(400)
    # The longest history is that of CartPole: four angles.
    assert model.observation_space["obs"].shape == (4,)  # type: ignore[index]
    assert [task.observation_space.shape for task in model.tasks] == [(4,), (2,)]
    assert {entry["task"] for entry in model.evaluations} == set(SEEN)
    model.save(tmp_path / "both")
    loaded = MultiTaskDistillation.load(tmp_path / "both", make_env(), device="cpu")
    whole = make_env().reset()
    assert np.array_equal(loaded.predict(whole, deterministic=True)[0], model.predict(whole, deterministic=True)[0])
    single: Any = model.task(SEEN[0])
    single.save(tmp_path / "one")
    assert PolicyDistillation.load(tmp_path / "one", device="cpu").student_keys == "positions"
    assert load_teacher(tmp_path / "one.zip", device="cpu").observation_space.shape == (4,)
    assert main(["evaluate", str(tmp_path / "one.zip"), "-n", "1"]) == 0


@pytest.mark.parametrize("keys", [["positions", "state"], None])
def test_several_keys_are_a_dict(agents: dict[str, DQN], tmp_path: Path, keys: list[str] | None) -> None:
    """Both parts are padded, each to its own length; a task's own student sees the task's own parts."""
    both = {
        name: DQN("MultiInputPolicy", name, seed=1, buffer_size=10, device="cpu", policy_kwargs={"net_arch": [8]})
        for name in SEEN
    }
    sees: dict[str, Any] = {"student_keys": keys, "teacher_keys": keys, "policy": "MultiTaskMultiInputPolicy"}
    model = make(both, **sees, n_eval_episodes=1, rollout_policy="linear").learn(300)
    space: Any = model.observation_space
    assert {key: part.shape for key, part in space.items()} == {"positions": (4,), "state": (4,), "task": ()}
    assert [{key: part.shape for key, part in task.parts.items()} for task in model.tasks] == [
        {"positions": (4,), "state": (4,)},
        {"positions": (2,), "state": (2,)},
    ]
    # The teachers answer to the whole observation of their task, without its padding.
    answer = model._teacher.answer({key: th.as_tensor(part) for key, part in make_env().reset().items()})[0]
    for index, name in enumerate(SEEN):
        whole: Any = make_vec_env(name, 1, seed=index).reset()
        expected = load_teacher(both[name], device="cpu").answer({key: th.as_tensor(whole[key]) for key in whole})[0]
        assert th.allclose(answer.by_task[index].q_values, expected.q_values)
    model.save(tmp_path / "both")
    loaded = MultiTaskDistillation.load(tmp_path / "both", make_env(), device="cpu")
    obs: Any = make_env().reset()
    actions = model.predict(obs, deterministic=True)[0]
    assert np.array_equal(loaded.predict(obs, deterministic=True)[0], actions)
    for index, name in enumerate(SEEN):
        single: Any = model.task(name)
        own = {key: obs[key][index : index + 1, : part.shape[0]] for key, part in model.tasks[index].parts.items()}
        tensors = {key: th.as_tensor(part) for key, part in own.items()}
        values = single.policy.q_net(tensors)
        everything = {key: th.as_tensor(part[index : index + 1]) for key, part in obs.items()}
        assert th.allclose(values, model.policy.q_net(everything)[:, : values.shape[1]], atol=1e-6)
    single.save(tmp_path / "one")
    assert main(["evaluate", str(tmp_path / "one.zip"), "-n", "1"]) == 0


def test_the_teachers_see_more_than_the_student(agents: dict[str, DQN]) -> None:
    both = {name: DQN("MultiInputPolicy", name, seed=1, buffer_size=10, device="cpu") for name in SEEN}
    model = make(both, teacher_keys=None, n_eval_episodes=1).learn(150)
    assert model.observation_space["obs"].shape == (4,)  # type: ignore[index]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"student_keys": None}, "MultiTaskMlpPolicy sees one key, and the student sees positions, state"),
        ({"policy": "MultiTaskMultiInputPolicy"}, r"is for several keys, and the student's observations are Box"),
        ({"teacher_keys": None}, "The teacher of SeenCartPole-v1.*Dict"),
        ({"student_keys": "task"}, r"student_keys: Unknown key 'task'.*positions.*state"),
        ({"student_keys": ["state", "speed"]}, r"student_keys: Unknown key 'speed'.*positions.*state"),
    ],
)
def test_bad_keys_are_named(agents: dict[str, DQN], keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(agents, **keys)


def test_a_dict_of_one_key_with_the_name_of_what_is_no_dict() -> None:
    class Wrapped(gym.ObservationWrapper):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(gym.make("CartPole-v1", **kwargs))
            self.observation_space = spaces.Dict({"obs": self.env.observation_space})

        def observation(self, observation: np.ndarray) -> dict[str, np.ndarray]:
            return {"obs": observation}

    gym.register("WrappedCartPole-v0", Wrapped, max_episode_steps=50)
    env = make_vec_env("MultiTask-v0", 1, env_kwargs={"env_ids": ["WrappedCartPole-v0"]})
    teachers = {"WrappedCartPole-v0": DQN("MultiInputPolicy", "WrappedCartPole-v0", buffer_size=10, device="cpu")}
    with pytest.raises(ValueError, match="the one key obs: name it with student_keys='obs'"):
        MultiTaskDistillation("MultiTaskMlpPolicy", env, teachers, **KWARGS)
    model = MultiTaskDistillation("MultiTaskMlpPolicy", env, teachers, student_keys="obs", **KWARGS).learn(150)
    assert model.task("WrappedCartPole-v0").observation_space.shape == (4,)


def test_a_multi_task_dqn_needs_one_part() -> None:
    with pytest.raises(ValueError, match="a multi-task DQN sees no Dict"):
        MultiTaskDQN("MultiTaskMlpPolicy", make_env())


def test_parts_of_other_lengths_need_padding() -> None:
    with pytest.raises(ValueError, match=r"differ \(SeenCartPole-v1 \(4,\), SeenMountainCar-v0 \(2,\)\).*pad=True"):
        make_env(pad=False)
