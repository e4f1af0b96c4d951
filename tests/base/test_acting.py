"""How students with discrete actions act while they collect steps."""

import numpy as np
import pytest
import torch as th
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

from sb3_distill import MultiTaskDistillation, PolicyDistillation
from tests.envs.tasks import IDS, make_env

KWARGS = {"rollout_policy": "student", "learning_starts": 10_000, "buffer_size": 2_000, "seed": 0, "device": "cpu"}


class Actions(BaseCallback):
    """Counts the actions of students, and those of them that are greedy."""

    def __init__(self):
        super().__init__()
        self.n_actions = self.n_greedy = 0

    def _on_step(self):
        greedy, _ = self.model.predict(self.model._last_obs, deterministic=True)
        self.n_actions += len(greedy)
        self.n_greedy += (self.locals["actions"] == greedy).sum()
        return True


@pytest.fixture(scope="module")
def teacher():
    return DQN("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [8]}, seed=3, device="cpu", buffer_size=10)


def make(teacher, **kwargs):
    env = make_vec_env("CartPole-v1", 4, seed=0)
    return PolicyDistillation("MlpPolicy", env, teacher, n_teacher_episodes=0, **{**KWARGS, **kwargs})


def test_a_student_samples_its_softmax_at_its_temperature(teacher):
    model = make(teacher, student_exploration="softmax", student_temperature=0.1)
    obs = np.repeat(np.array([[0.1, 0.5, -0.05, -0.3]], np.float32), 20_000, axis=0)
    with th.no_grad():
        outputs = model.policy.answer(th.as_tensor(obs[:1])).q_values[0]
    share = th.softmax(outputs / 0.1, dim=0)[1].item()
    assert 0.05 < share < 0.95 and abs(share - 0.5) > 0.02
    played = model._policy_actions(obs, np.random.default_rng(0)).mean()
    assert played == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / len(obs)))


def test_sampling_adds_no_random_actions(teacher):
    shares = {}
    # Nearly cold, the softmax is greedy: all other actions would be those of student_eps.
    for exploration in ("softmax", "epsilon_greedy"):
        actions = Actions()
        kwargs = {"student_exploration": exploration, "student_temperature": 1e-6, "student_eps": 1.0}
        make(teacher, **kwargs).learn(800, callback=actions)
        shares[exploration] = actions.n_greedy / actions.n_actions
    assert shares["softmax"] == 1.0 and 0.4 < shares["epsilon_greedy"] < 0.6


def test_sampled_play_repeats_with_its_seed(teacher):
    def play(seed):
        model = make(teacher, student_exploration="softmax", seed=seed, learning_starts=100).learn(400)
        return model.policy.q_net.q_net[0].weight

    assert th.equal(play(0), play(0)) and not th.equal(play(0), play(1))


def test_tasks_are_sampled_among_their_own_actions(teacher):
    car = DQN("MlpPolicy", "MountainCar-v0", policy_kwargs={"net_arch": [8]}, seed=3, device="cpu", buffer_size=10)
    teachers = dict(zip(IDS, (teacher, car), strict=True))
    kwargs = {"student_exploration": "softmax", "n_eval_episodes": 0, "student_temperature": 100.0}
    model = MultiTaskDistillation("MultiTaskMlpPolicy", make_env(), teachers, **{**KWARGS, **kwargs})
    obs = {"obs": np.zeros((3_000, 4), np.float32), "task": np.arange(3_000) % 2}
    actions = model._policy_actions(obs, np.random.default_rng(0))
    # Nearly hot, all actions that a task has are alike: CartPole has two, MountainCar three.
    for task, n_actions in enumerate((2, 3)):
        shares = np.bincount(actions[task::2], minlength=3) / 1_500
        assert shares[:n_actions] == pytest.approx(1 / n_actions, abs=0.06) and shares[n_actions:].sum() == 0


def test_unknown_exploration_is_refused(teacher):
    with pytest.raises(ValueError, match=r"Unknown student_exploration 'softmaks'.*Did you mean 'softmax'"):
        make(teacher, student_exploration="softmaks")
