"""Networks of several tasks: one trunk, and a controller for each task."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_distill.networks.multi_task import (
    MultiTaskCnnPolicy,
    MultiTaskGridCnnPolicy,
    MultiTaskLargeCnnPolicy,
    MultiTaskMultiInputPolicy,
)
from sb3_distill.networks.policies import StudentPolicy
from tests.helpers import preferences


@pytest.mark.parametrize(
    ("policy_class", "task_actions", "n_parameters"),
    [
        # Rusu et al. 2015, table A2: Freeway 3, Pong 3, Q*bert 6
        (MultiTaskCnnPolicy, [3, 3, 6], 1_882_668),
        # Ten games with 85 actions in all
        (MultiTaskLargeCnnPolicy, [9, 4, 9, 3, 9, 3, 6, 18, 18, 6], 6_756_721),
    ],
)
def test_parameter_counts_are_the_papers(policy_class, task_actions, n_parameters):
    space = spaces.Dict({"obs": spaces.Box(0, 255, (4, 84, 84), np.uint8), "task": spaces.Discrete(len(task_actions))})
    policy = policy_class(space, spaces.Discrete(max(task_actions)), lambda _: 1e-3, task_actions)
    assert policy.n_parameters == n_parameters


def make_grid_policy(task_actions):
    space = spaces.Dict({"obs": spaces.Box(0, 1, (10, 10, 4), bool), "task": spaces.Discrete(len(task_actions))})
    return MultiTaskGridCnnPolicy(space, spaces.Discrete(max(task_actions)), lambda _: 1e-3, task_actions)


def test_the_task_picks_the_controller():
    policy = make_grid_policy([2, 4, 3])
    obs = {"obs": th.rand(6, 10, 10, 4) > 0.5, "task": th.tensor([2, 0, 1, 0, 2, 1])}
    values = preferences(policy, obs)
    features = policy.q_net.features(obs)
    for row, task in enumerate(obs["task"].tolist()):
        expected = policy.q_net.controllers[task](features[row])
        assert th.allclose(values[row, : len(expected)], expected)
        assert (values[row, len(expected) :] == -th.inf).all()
    actions, _ = policy.predict({"obs": obs["obs"].numpy(), "task": obs["task"].numpy()}, deterministic=True)
    assert (actions < np.array([3, 2, 4, 2, 3, 4])).all()


def test_gradients_reach_the_controllers_of_the_batch_alone():
    policy = make_grid_policy([2, 3])
    obs = {"obs": th.rand(3, 10, 10, 4) > 0.5, "task": th.tensor([1, 1, 1])}
    preferences(policy, obs)[:, :3].sum().backward()
    assert all(
        parameter.grad is None or not parameter.grad.any() for parameter in policy.q_net.controllers[0].parameters()
    )
    assert all(parameter.grad.any() for parameter in policy.q_net.controllers[1].parameters())


def test_a_task_of_its_own_has_pictures_and_a_shorter_vector():
    pixels = spaces.Box(0, 255, (1, 36, 36), np.uint8)
    parts = {"pixels": pixels, "speeds": spaces.Box(-1, 1, (5,)), "zero": spaces.Box(-1, 1, (3,))}
    policy = MultiTaskMultiInputPolicy(
        spaces.Dict({**parts, "task": spaces.Discrete(2)}), spaces.Discrete(3), lambda _: 1e-3, [2, 3]
    )
    own_space = spaces.Dict({**parts, "speeds": spaces.Box(-1, 1, (2,))})
    own = StudentPolicy(own_space, spaces.Discrete(2), lambda _: 1e-3, **policy.single_task_kwargs())
    policy.copy_task_to(0, own)
    obs = {"pixels": th.randint(0, 256, (4, 1, 36, 36), dtype=th.uint8), "zero": th.rand(4, 3)}
    speeds = th.rand(4, 2)
    padded = th.cat([speeds, th.zeros(4, 3)], dim=1)
    expected = preferences(policy, {**obs, "speeds": padded, "task": th.zeros(4, dtype=th.int64)})
    assert th.allclose(preferences(own, {**obs, "speeds": speeds}), expected[:, :2], atol=1e-5)
