"""Memories of several tasks."""

import numpy as np
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_distill.buffers.tasks import MultiTaskDistillationBuffer, MultiTaskReplayBuffer
from sb3_distill.common.answers import Answers, TaskAnswers
from tests.buffers.records import step_record


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1_000),
    n_envs=st.integers(1, 3),
    n_steps=st.integers(5, 60),
    n_tasks=st.integers(1, 3),
    task_sampling=st.sampled_from(["random", "equal"]),
)
def test_samples_are_what_was_stored_for_their_task(seed, n_envs, n_steps, n_tasks, task_sampling):
    rng = np.random.default_rng(seed)
    np.random.seed(seed)
    space = spaces.Dict({"obs": spaces.Box(0, 255, (2, 5, 5), np.uint8), "task": spaces.Discrete(n_tasks)})
    buffer = MultiTaskDistillationBuffer(
        12 * n_envs, space, spaces.Discrete(3), "cpu", n_envs, task_sampling=task_sampling
    )
    recent: dict[tuple[int, int], list] = {}
    for _ in range(n_steps):
        obs = {
            "obs": rng.integers(0, 255, size=(n_envs, 2, 5, 5), dtype=np.uint8),
            "task": rng.integers(n_tasks, size=n_envs),
        }
        logits = rng.normal(size=(n_envs, 3)).astype(np.float32)
        own = {task: Answers(q_values=logits[obs["task"] == task]) for task in set(obs["task"].tolist())}
        buffer.add(step_record(obs, TaskAnswers(obs["task"], own)))
        for env, task in enumerate(obs["task"].tolist()):
            recent.setdefault((task, env), []).append((obs["obs"][env].tobytes(), logits[env].tobytes()))
    samples = buffer.sample(8)
    tasks = samples.observations["task"].reshape(-1).tolist()
    assert len(tasks) == 8
    known = {
        task: {pair for (owner, _), pairs in recent.items() if owner == task for pair in pairs[-12:]} for task in tasks
    }
    for row, task in enumerate(tasks):
        own = tasks[:row].count(task)
        answer = samples.answers[task].q_values[own]
        pair = samples.observations["obs"][row].numpy().tobytes(), answer.numpy().tobytes()
        assert pair in known[task]
    seen = {task for task, _ in recent}
    counts = [tasks.count(task) for task in seen]
    if task_sampling == "random":
        assert len(set(tasks)) == 1
    else:
        assert max(counts) - min(counts) <= 1


def test_transitions_stay_within_their_task():
    space = spaces.Dict({"obs": spaces.Box(-1, 1, (3,)), "task": spaces.Discrete(2)})
    buffer = MultiTaskReplayBuffer(100, space, spaces.Discrete(2), "cpu", n_envs=2)
    for step in range(20):
        obs = {"obs": np.full((2, 3), step / 100, np.float32), "task": np.array([0, 1])}
        following = {"obs": obs["obs"] + 0.01, "task": np.array([0, 1])}
        buffer.add(obs, following, np.array([0, 1]), np.array([1.0, 2.0]), np.array([False, True]), [{}, {}])
    for _ in range(5):
        samples = buffer.sample(16)
        task = samples.observations["task"][0].item()
        assert (samples.observations["task"] == task).all() and (samples.next_observations["task"] == task).all()
        assert (samples.actions == task).all() and (samples.rewards == 1 + task).all() and (samples.dones == task).all()
        assert th.allclose(samples.next_observations["obs"], samples.observations["obs"] + 0.01)
