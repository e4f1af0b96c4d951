"""The jointly trained DQN."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from stable_baselines3.common.vec_env import VecNormalize

from sb3_distill import MultiTaskDQN
from tests.envs.tasks import make_env
from tests.helpers import REPOSITORY, same
from tests.mtpd.students import KWARGS, make


def test_multi_task_dqn_learns_saves_and_goes_on(tmp_path: Path):
    kwargs = {"learning_starts": 50, "buffer_size": 500, "seed": 0, "device": "cpu"}
    models = [MultiTaskDQN("MultiTaskMlpPolicy", make_env(), **kwargs).learn(300) for _ in range(2)]
    model = models[0]
    assert model._n_updates > 0 and same(model.policy, models[1].policy)
    assert all(parameter.isfinite().all() for parameter in model.policy.parameters())
    for (task, _), memory in model.replay_buffer.memories.items():
        assert memory.actions.max() < model.policy.task_actions[task]
    model.save(tmp_path / "model")
    loaded = MultiTaskDQN.load(tmp_path / "model", env=make_env(), device="cpu")
    obs = {"obs": np.zeros((4, 4), np.float32), "task": np.array([0, 1, 0, 1])}
    assert np.array_equal(loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])
    loaded.learn(100, reset_num_timesteps=False)


@pytest.mark.parametrize("learning_starts", [0, 10_000])
def test_random_actions_are_uniform_in_every_task(learning_starts):
    """In the training and in its warm-up; CartPole has two of the three actions."""
    explores = {"exploration_initial_eps": 1.0, "exploration_final_eps": 1.0}
    model = MultiTaskDQN(
        "MultiTaskMlpPolicy",
        make_env(),
        learning_starts=learning_starts,
        train_freq=10_000,
        buffer_size=1_500,
        seed=0,
        device="cpu",
        **explores,
    )
    model.learn(1_200)
    obs = {"obs": np.zeros((1_000, 4), np.float32), "task": np.arange(1_000) % 2}
    predicted, _ = model.predict(obs)
    assert model.predict({"obs": np.zeros(4, np.float32), "task": 0})[0] in (0, 1)
    played = {0: [], 1: []}
    for (task, _), memory in model.replay_buffer.memories.items():
        played[task] += memory.actions[: memory.pos].reshape(-1).tolist()
    for task, n_actions in enumerate(model.policy.task_actions):
        for actions in (np.array(played[task]), predicted[obs["task"] == task]):
            shares = np.bincount(actions) / len(actions)
            # Four standard deviations of a share
            assert len(shares) == n_actions and np.abs(shares - 1 / n_actions).max() < 2 / np.sqrt(len(actions))


def test_students_of_several_tasks_explore_uniformly_too(teachers):
    obs = {"obs": np.zeros((4_000, 4), np.float32), "task": np.arange(4_000) % 2}
    predicted, _ = make(teachers, student_eps=1.0).predict(obs)
    for task, n_actions in enumerate((2, 3)):
        assert np.abs(np.bincount(predicted[obs["task"] == task]) / 2_000 - 1 / n_actions).max() < 0.045


def test_both_networks_have_the_same_parameters(teachers):
    dqn = MultiTaskDQN("MultiTaskMlpPolicy", make_env(), policy_kwargs=KWARGS["policy_kwargs"])
    student = make(teachers)
    assert {name: p.shape for name, p in dqn.q_net.named_parameters()} == {
        name: p.shape for name, p in student.policy.q_net.named_parameters()
    }


def test_both_algorithms_train_the_same_network_by_default():
    folder = REPOSITORY / "hyperparams"
    settings = [yaml.safe_load((folder / f"{algo}.yml").read_text()) for algo in ("mtpd", "mtdqn")]
    for name in set(settings[0]) | set(settings[1]):
        networks = [(own[name]["policy"], own[name].get("policy_kwargs")) for own in settings]
        assert networks[0] == networks[1]


def test_multi_task_dqn_refuses_what_its_memories_cannot_do():
    for kwargs, message in (({"n_steps": 3}, "n_steps must be 1, not 3"), ({"task_sampling": "both"}, "task_sampling")):
        with pytest.raises(ValueError, match=message):
            MultiTaskDQN("MultiTaskMlpPolicy", make_env(), device="cpu", **kwargs)
    with pytest.raises(ValueError, match="VecNormalize mixes the statistics"):
        MultiTaskDQN("MultiTaskMlpPolicy", VecNormalize(make_env(), norm_obs_keys=["obs"]), device="cpu")
