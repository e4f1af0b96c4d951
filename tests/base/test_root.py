"""What all distillation algorithms have from their root: checks, callbacks, and questions to the teacher."""

import numpy as np
import pytest
import torch as th
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

from sb3_distill import QPD, PolicyDistillation

KWARGS = {"learning_starts": 20, "buffer_size": 600, "n_teacher_episodes": 0, "device": "cpu", "seed": 0}


@pytest.fixture(scope="module")
def dqn():
    return DQN("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [16]}, seed=0, device="cpu")


def student(teacher, env="CartPole-v1", n_envs=1, cls=PolicyDistillation, **kwargs):
    return cls("MlpPolicy", make_vec_env(env, n_envs, seed=0), teacher, **{**KWARGS, **kwargs})


class Locals(BaseCallback):
    """Keeps what SB3's algorithms show to callbacks."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def _on_step(self):
        names = ("new_obs", "actions", "buffer_actions", "rewards", "dones")
        self.seen.append({name: np.array(self.locals[name]) for name in names})
        assert self.locals["num_collected_steps"] > self.locals["num_collected_episodes"] >= 0
        return True


@pytest.mark.parametrize(
    ("train_freq", "n_envs", "message"),
    [
        (0, 1, "train_freq must be at least one step or episode between updates, not 0"),
        ((-1, "episode"), 1, "train_freq must be at least one step"),
        ((1, "episode"), 2, r"train_freq counts episodes.*single environment, but there are 2: count steps"),
    ],
)
def test_frequencies_that_cannot_be(dqn, train_freq, n_envs, message):
    with pytest.raises(ValueError, match=message):
        student(dqn, n_envs=n_envs, train_freq=train_freq)


def test_a_frequency_in_episodes(dqn):
    model = student(dqn, train_freq=(2, "episode")).learn(100)
    assert model._episode_num % 2 == 0 and model._n_updates == model._episode_num // 2 - 1


def test_callbacks_see_the_actions_of_the_environment():
    callback = Locals()
    teacher = A2C("MlpPolicy", "Pendulum-v1", policy_kwargs={"log_std_init": 2.0}, seed=0, device="cpu")
    student(teacher, "Pendulum-v1", 2, QPD, learning_starts=150).learn(160, callback=callback)
    drawn = np.concatenate([step["buffer_actions"] for step in callback.seen])
    played = np.concatenate([step["actions"] for step in callback.seen])
    assert np.abs(drawn).max() > 2 and np.array_equal(played, np.clip(drawn, -2, 2))


def test_callbacks_of_a_reader_see_what_was_played(dqn, tmp_path):
    played, read = Locals(), Locals()
    for callback in (played, read):
        model = student(dqn, n_envs=2, recording=tmp_path / "play").learn(200, callback=callback)
    assert len(played.seen) == len(read.seen) == 100
    for first, second in zip(played.seen[:-1], read.seen[:-1], strict=True):
        assert all(np.array_equal(first[name], second[name]) for name in first)
    # What came after the last step was not recorded.
    assert np.array_equal(read.seen[-1]["new_obs"], read.seen[-2]["new_obs"])
    assert np.array_equal(model._last_obs, read.seen[-1]["new_obs"])


def test_teachers_of_another_kind_need_an_empty_memory(dqn, ppo_teacher):
    model = student(dqn).learn(60)
    model.teacher = ppo_teacher
    with (
        pytest.warns(UserWarning, match="goes on with another one"),
        pytest.raises(ValueError, match=r"q_values of a teacher of another kind.*log_probs: call replay_buffer.reset"),
    ):
        model.learn(60, reset_num_timesteps=False)
    model.replay_buffer.reset()
    model.learn(60, reset_num_timesteps=False)
    assert list(model.replay_buffer.answers) == ["log_probs"]


@pytest.mark.parametrize(("cls", "stored"), [(PolicyDistillation, ["log_probs"]), (QPD, ["log_probs", "values"])])
@pytest.mark.parametrize("shared", [True, False])
def test_critics_are_asked_only_where_they_are_distilled(cls, stored, shared):
    teacher = PPO("MlpPolicy", "CartPole-v1", policy_kwargs={"share_features_extractor": shared}, n_steps=64, seed=0)
    calls = []
    full_precision = {"weight_bits": None} if cls is QPD else {}
    model = student(teacher, cls=cls, learning_starts=50, **full_precision).learn(0)
    model._teacher.policy.value_net.register_forward_hook(lambda *_: calls.append(1))
    model.learn(40)
    assert list(model.replay_buffer.answers) == stored
    assert len(calls) == (40 if cls is QPD else 0)


@pytest.mark.parametrize("cls", [PolicyDistillation, QPD])
def test_the_clipping_norm_may_change(cls, ppo_teacher):
    kwargs = {"optimizer_class": th.optim.SGD}
    model = student(ppo_teacher, cls=cls, policy_kwargs=kwargs, learning_rate=1.0).learn(60)
    before = [parameter.detach().clone() for parameter in model.policy.parameters()]
    model.max_grad_norm = 1e-12
    model.learn(60, reset_num_timesteps=False)
    changes = [float((a - b).detach().abs().max()) for a, b in zip(before, model.policy.parameters(), strict=True)]
    assert model._n_updates > 20 and max(changes) < 1e-8
