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
