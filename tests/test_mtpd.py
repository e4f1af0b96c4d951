from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
import yaml
from conftest import run_python
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecNormalize

from sb3_distill import MultiTaskDistillation, MultiTaskDQN, PolicyDistillation, RealTimeDistillDQN, load_teacher
from sb3_distill.agents.errors import TeacherError
from sb3_distill.buffers.tasks import MultiTaskDistillationBuffer, MultiTaskReplayBuffer
from sb3_distill.common.losses import kl_loss
from sb3_distill.envs.multitask import fit_frame, pad_last_axis, tasks_of
from sb3_distill.evaluation.play import Score
from sb3_distill.evaluation.tasks import score_tasks, task_interval
from sb3_distill.networks.multi_task import MultiTaskCnnPolicy, MultiTaskGridCnnPolicy, MultiTaskLargeCnnPolicy
from sb3_distill.results.statistics import geometric_mean, normalized_percent

IDS = ["CartPole-v1", "MountainCar-v0"]
ENV_KWARGS = {"env_ids": IDS, "pad": True}


def make_env(n_envs: int = 2, **kwargs) -> VecEnv:
    return make_vec_env("MultiTask-v0", n_envs, env_kwargs={**ENV_KWARGS, **kwargs})


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of different algorithms and numbers of actions: untrained, only their answers matter."""
    folder = tmp_path_factory.mktemp("teachers")
    DQN("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [16]}, seed=0, device="cpu").save(folder / "dqn")
    PPO("MlpPolicy", "MountainCar-v0", n_steps=8, batch_size=8, seed=0, device="cpu").save(folder / "ppo")
    return {"CartPole-v1": folder / "dqn.zip", "MountainCar-v0": folder / "ppo.zip"}


KWARGS = {
    "learning_starts": 100,
    "buffer_size": 1_000,
    "n_eval_episodes": 0,
    "seed": 0,
    "device": "cpu",
    "policy_kwargs": {"trunk_arch": [16], "net_arch": [8]},
}


def make(teachers, env: VecEnv | None = None, **kwargs) -> MultiTaskDistillation:
    env = make_env() if env is None else env
    return MultiTaskDistillation("MultiTaskMlpPolicy", env, teachers, **{**KWARGS, **kwargs})


def same(first: th.nn.Module, second: th.nn.Module) -> bool:
    states = first.state_dict(), second.state_dict()
    return states[0].keys() == states[1].keys() and all(th.equal(states[0][key], states[1][key]) for key in states[0])


# --- The environment


def test_tasks_take_turns_and_can_be_chosen():
    env = gym.make("MultiTask-v0", **ENV_KWARGS).unwrapped
    for episode in range(4):
        obs, info = env.reset(seed=4 if episode == 0 else None)
        assert obs["task"] == episode % 2 and info["task"] == IDS[episode % 2]
        assert env.observation_space.contains(obs)
    for task in (0, 0, IDS[0], np.int64(0)):
        assert env.reset(options={"task": task})[0]["task"] == 0
    for task in (2, -1, "Pong", 0.5):
        with pytest.raises(
            ValueError, match=r"must be the name of a task \(CartPole-v1, MountainCar-v0\) or its index"
        ):
            env.reset(options={"task": task})
    assert env.reset()[0]["task"] == 1


def test_environment_is_gymnasiums():
    check_env(gym.make("sb3_distill:MultiTask-v0", **ENV_KWARGS).unwrapped, skip_render_check=True)


@pytest.mark.parametrize("vec_env_cls", [DummyVecEnv, SubprocVecEnv])
def test_environments_side_by_side_begin_with_different_tasks(vec_env_cls):
    # As "sb3_distill:MultiTask-v0" other processes know it too.
    env = make_vec_env("sb3_distill:MultiTask-v0", 4, seed=0, env_kwargs=ENV_KWARGS, vec_env_cls=vec_env_cls)
    assert env.reset()["task"].tolist() == [0, 1, 0, 1]
    env.close()


def test_frames_of_all_tasks_have_one_size():
    env = gym.make("MultiTask-v0", env_ids=["CartPole-v1", "Acrobot-v1"], pad=True, render_mode="rgb_array").unwrapped
    frames = []
    for task in ("CartPole-v1", "Acrobot-v1"):
        env.reset(options={"task": task})
        frames.append(env.render())
    assert frames[0].shape == frames[1].shape and frames[1].max() > 0
    assert env.current_env.render().shape != frames[0].shape
    env.close()


def test_a_frame_keeps_its_proportions():
    fitted = fit_frame(np.full((10, 20, 3), 7, np.uint8), 40, 40)
    assert fitted.shape == (40, 40, 3)
    assert (fitted[10:30] == 7).all() and not fitted[:10].any() and not fitted[30:].any()


def test_vectors_are_padded_and_actions_wrap():
    env, plain = gym.make("MultiTask-v0", **ENV_KWARGS).unwrapped, gym.make("CartPole-v1")
    assert env.action_space == spaces.Discrete(3)
    obs, _ = env.reset(seed=3, options={"task": 1})
    assert np.array_equal(obs["obs"][2:], [0, 0])
    env.reset(seed=3, options={"task": 0})
    plain.reset(seed=3)
    # CartPole has two actions: 2 is played as 0
    assert np.array_equal(env.step(2)[0]["obs"], plain.step(0)[0])


def test_grids_are_padded_and_cut_out(tmp_path: Path):
    pytest.importorskip("minatar")
    ids = ["MinAtar/Breakout-v1", "MinAtar/SpaceInvaders-v1"]
    env = make_vec_env("MultiTask-v0", 2, seed=0, env_kwargs={"env_ids": ids, "pad": True})
    assert env.observation_space["obs"] == spaces.Box(0, 1, (10, 10, 6), np.bool_)
    assert not env.reset()["obs"][..., 4:].any()
    sources = {}
    for env_id in ids:
        teacher = RealTimeDistillDQN("GridCnnPolicy", env_id, buffer_size=100, seed=0, device="cpu")
        teacher.save(tmp_path / env_id.split("/")[1])
        sources[env_id] = tmp_path / f"{env_id.split('/')[1]}.zip"
    kwargs = {"learning_starts": 50, "buffer_size": 200, "n_eval_episodes": 0, "seed": 0, "device": "cpu"}
    model = MultiTaskDistillation("MultiTaskGridCnnPolicy", env, sources, **kwargs).learn(200)
    rng = np.random.default_rng(0)
    for index, (env_id, channels) in enumerate(zip(ids, (4, 6), strict=True)):
        obs = rng.random((30, 10, 10, channels)) < 0.2
        padded = {"obs": pad_last_axis(obs, 6), "task": np.full(30, index)}
        expected = model.predict(padded, deterministic=True)[0]
        assert np.array_equal(model.task(env_id).predict(obs, deterministic=True)[0], expected)
    assert set(score_tasks(model._teacher.tasks, model.policy, 1)) == set(ids)
    # Flattened, the padding lies between the entries.
    flat = MultiTaskDistillation("MultiTaskMlpPolicy", env, sources, **kwargs)
    obs = rng.random((30, 10, 10, 4)) < 0.2
    padded = {"obs": th.as_tensor(pad_last_axis(obs, 6)), "task": th.zeros(30)}
    own = flat.task(ids[0]).policy.logits(th.as_tensor(obs))
    assert th.allclose(own, flat.policy.logits(padded)[:, : own.shape[1]], atol=1e-5)
    with pytest.raises(ValueError, match="of one type can be padded"):
        gym.make("MultiTask-v0", env_ids=["MinAtar/Breakout-v1", "CartPole-v1"], pad=True)


def test_atari_games_share_stacked_frames():
    env = gym.make("MultiTaskAtari-v0", games=["Pong", "Freeway"])
    assert env.observation_space["obs"] == spaces.Box(0, 255, (4, 84, 84), np.uint8)
    assert [task.n_actions for task in env.unwrapped.tasks] == [6, 3]
    obs, _ = env.reset(seed=0)
    assert not obs["obs"][:3].any() and obs["obs"][3].any()
    following = env.step(0)[0]["obs"]
    assert np.array_equal(following[2], obs["obs"][3])


@pytest.mark.parametrize(
    ("env_id", "kwargs", "message"),
    [
        ("MultiTask-v0", {"env_ids": IDS}, r"observation spaces differ \(CartPole-v1 \(4,\), .*pass pad=True"),
        ("MultiTask-v0", {"env_ids": []}, "env_ids is a list of names"),
        ("MultiTask-v0", {"env_ids": "CartPole-v1"}, "env_ids is a list of names"),
        ("MultiTask-v0", {"env_ids": ["CartPole-v1", "CartPole-v1"]}, "names 'CartPole-v1' twice"),
        ("MultiTask-v0", {"env_ids": ["Pendulum-v1"]}, "needs Box observations and Discrete actions"),
        ("MultiTaskAtari-v0", {"games": ["Pong", "Pong"]}, "names 'Pong' twice"),
        ("MultiTaskAtari-v0", {"games": ["Pnog"]}, "Unknown game 'Pnog'"),
    ],
)
def test_tasks_that_do_not_fit_are_refused(env_id, kwargs, message):
    with pytest.raises(ValueError, match=message):
        gym.make(env_id, **kwargs)


# --- Networks


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
    values = policy.logits(obs)
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
    policy.logits(obs)[:, :3].sum().backward()
    assert all(
        parameter.grad is None or not parameter.grad.any() for parameter in policy.q_net.controllers[0].parameters()
    )
    assert all(parameter.grad.any() for parameter in policy.q_net.controllers[1].parameters())


# --- Memories


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
        buffer.add(obs, logits)
        for env, task in enumerate(obs["task"].tolist()):
            recent.setdefault((task, env), []).append((obs["obs"][env].tobytes(), logits[env].tobytes()))
    samples = buffer.sample(8)
    tasks = samples.observations["task"].reshape(-1).tolist()
    assert len(tasks) == 8
    known = {
        task: {pair for (owner, _), pairs in recent.items() if owner == task for pair in pairs[-12:]} for task in tasks
    }
    for row, task in enumerate(tasks):
        pair = samples.observations["obs"][row].numpy().tobytes(), samples.teacher_logits[row].numpy().tobytes()
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


# --- Learning


def test_the_loss_is_that_of_each_task(teachers):
    model = make(teachers, temperature={"CartPole-v1": 0.5, "MountainCar-v0": 2.0}, task_sampling="equal").learn(400)
    samples = model.replay_buffer.sample(16)
    student = model.policy.logits(samples.observations)
    tasks = samples.observations["task"].reshape(-1)
    expected = sum(
        kl_loss(samples.teacher_logits[tasks == task, :n], student[tasks == task, :n], temperature, 1.0) / 2
        for task, n, temperature in ((0, 2, 0.5), (1, 3, 2.0))
    )
    loss, _ = model._eager_loss(samples)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_labels_are_those_of_each_tasks_teacher(teachers):
    model = make(teachers).learn(400)
    samples = model.replay_buffer.sample(64)
    task = int(samples.observations["task"][0])
    teacher, own = load_teacher(teachers[IDS[task]], device="cpu"), (4, 2)[task]
    expected = teacher.logits(samples.observations["obs"][:, :own])
    assert th.allclose(samples.teacher_logits[:, : expected.shape[1]], expected, atol=1e-6)
    assert (samples.teacher_logits[:, expected.shape[1] :] == -th.inf).all()


@pytest.mark.parametrize("rollout_policy", ["teacher", "student", "linear"])
@pytest.mark.parametrize("loss", ["kl", "reverse_kl", "nll", "mse"])
def test_same_seed_same_bits(teachers, rollout_policy, loss):
    models = [make(teachers, loss=loss, rollout_policy=rollout_policy).learn(300) for _ in range(2)]
    assert models[0]._n_updates > 0 and same(models[0].policy, models[1].policy)
    assert all(parameter.isfinite().all() for parameter in models[0].policy.parameters())


def test_random_actions_are_actions_of_the_task(teachers):
    model = make(teachers, teacher_eps=1.0)
    model._setup_learn(100)
    model._last_obs = {"obs": np.zeros((2, 4), np.float32), "task": np.array([0, 1])}
    drawn = np.array([model._sample_action(0)[0] for _ in range(300)])
    assert set(drawn[:, 0]) == {0, 1} and set(drawn[:, 1]) == {0, 1, 2}


def test_save_load_resume_without_teachers_at_hand(teachers, tmp_path: Path):
    model = make(teachers).learn(300)
    model.save(tmp_path / "model")
    obs = {"obs": np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32), "task": np.arange(20) % 2}
    loaded = MultiTaskDistillation.load(tmp_path / "model", device="cpu")
    assert np.array_equal(loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])
    resumed = MultiTaskDistillation.load(tmp_path / "model", env=make_env(), device="cpu")
    resumed.learn(200, reset_num_timesteps=False)
    assert resumed._n_updates > model._n_updates and resumed.num_timesteps == model.num_timesteps + 200


def test_nothing_is_learned_before_all_tasks_have_been_seen(teachers):
    env = make_env(1)
    # CartPole's first episode ends; MountainCar has 200 steps.
    model = make(teachers, env, learning_starts=0, rollout_policy="student", student_eps=1.0)
    updates = []
    model.learn(100, callback=lambda *_: updates.append((model.replay_buffer.has_all_tasks, model._n_updates)) or True)
    assert updates[0] == (False, 0) and updates[-1][0] and updates[-1][1] > 0
    assert all(n_updates == 0 for has_all, n_updates in updates if not has_all)


@pytest.mark.parametrize("cls", [MultiTaskDistillation, MultiTaskDQN])
def test_tasks_keep_their_order(teachers, tmp_path: Path, cls):
    model = make(teachers) if cls is MultiTaskDistillation else cls("MultiTaskMlpPolicy", make_env(), device="cpu")
    model.save(tmp_path / "model")
    other = make_env(env_ids=IDS[::-1])
    message = "made for the tasks CartPole-v1, MountainCar-v0, but the environment's are MountainCar-v0, CartPole-v1"
    with pytest.raises(ValueError, match=message):
        cls.load(tmp_path / "model", env=other)
    with pytest.raises(ValueError, match=message):
        model.set_env(other)
    model.set_env(make_env())


def test_a_single_task_is_cut_out(teachers, tmp_path: Path):
    model = make(teachers).learn(300)
    for index, (name, length) in enumerate(zip(IDS, (4, 2), strict=True)):
        model.task(name).save(tmp_path / name)
        obs = np.random.default_rng(0).normal(size=(50, length)).astype(np.float32)
        padded = {"obs": np.pad(obs, ((0, 0), (0, 4 - length))), "task": np.full(50, index)}
        expected = model.predict(padded, deterministic=True)[0]
        single = PolicyDistillation.load(tmp_path / name, device="cpu")
        assert np.array_equal(single.predict(obs, deterministic=True)[0], expected)
        assert np.array_equal(load_teacher(tmp_path / f"{name}.zip", device="cpu").predict(obs)[0], expected)
    with pytest.raises(ValueError, match=r"Unknown task 'CartPole'.*Did you mean 'CartPole-v1'"):
        model.task("CartPole")


def test_image_students_standardise_over_all_games(tmp_path: Path):
    games = {"Pong": 6, "Freeway": 3}
    sources = {}
    for game in games:
        env = make_vec_env("MultiTaskAtari-v0", env_kwargs={"games": [game]})
        space, actions = env.observation_space["obs"], env.action_space
        student = PolicyDistillation.of_policy("Net5Policy", {}, space, actions, "cpu")
        student.save(tmp_path / game)
        sources[game] = tmp_path / f"{game}.zip"
    env = make_vec_env("MultiTaskAtari-v0", 2, env_kwargs={"games": list(games)})
    model = MultiTaskDistillation(
        "MultiTaskCnnPolicy",
        env,
        sources,
        policy_kwargs={"features_extractor_kwargs": {"channels": (8, 8, 8), "features_dim": 16}, "net_arch": [8]},
        learning_starts=20,
        buffer_size=100,
        n_eval_episodes=0,
        device="cpu",
        seed=0,
    ).learn(60)
    assert bool(model.policy.q_net.features_extractor.scaler.fitted) and model._n_updates > 0
    assert model.replay_buffer.has_all_tasks
    model.task("Pong").save(tmp_path / "single")
    frames = np.random.default_rng(0).integers(0, 255, size=(4, 4, 84, 84), dtype=np.uint8)
    expected = model.predict({"obs": frames, "task": np.zeros(4, int)}, deterministic=True)[0]
    assert np.array_equal(load_teacher(tmp_path / "single.zip", device="cpu").predict(frames)[0], expected)


# --- The jointly trained DQN


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


# --- Evaluation


def test_scores_are_taken_in_the_tasks_own_environments(teachers):
    model = make(teachers).learn(200)
    scores = score_tasks(tasks_of(model.env), model.policy, 4)
    assert list(scores) == IDS
    single = model.task("CartPole-v1")
    assert len(scores["CartPole-v1"].returns) == 4 and scores["MountainCar-v0"].mean < 0
    from sb3_distill.envs.make import make_eval_env
    from sb3_distill.evaluation.play import evaluate_paired

    expected = evaluate_paired(single.policy, lambda n: make_eval_env("CartPole-v1", n), 4)
    assert scores["CartPole-v1"].returns == expected.returns


def test_geometric_mean_of_normalized_scores():
    assert normalized_percent(-10.0, 20.0, -20.0) == pytest.approx(25)
    assert normalized_percent(20.0, 20.0, -20.0) == 100
    assert geometric_mean([25.0, 100.0]) == pytest.approx(50)
    # A task that was not learned counts as one per cent
    assert geometric_mean([-30.0, 100.0]) == pytest.approx(10)


def test_interval_holds_the_mean_and_shrinks_with_more_episodes():
    rng = np.random.default_rng(0)

    def scores(n: int, mean: float) -> dict[str, Score]:
        return {name: Score(list(rng.normal(mean, 5, n)), [1] * n) for name in IDS}

    widths = []
    for n in (10, 1_000):
        mean, low, high = task_interval(scores(n, 30), scores(n, 40), scores(n, 0))
        assert low < mean < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 3 and low < 75 < high
    constant = {name: Score([10.0] * 5, [1] * 5) for name in IDS}
    random = {name: Score([0.0] * 5, [1] * 5) for name in IDS}
    assert task_interval(constant, constant, random) == pytest.approx((100, 100, 100))


def test_teachers_that_are_no_better_than_random_give_no_measure():
    assert np.isnan(normalized_percent(-350.0, -250.0, -200.0)) and np.isnan(normalized_percent(1.0, 0.0, 0.0))
    good, bad = Score([10.0] * 5, [1] * 5), Score([0.0] * 5, [1] * 5)
    ours, teachers = dict(zip(IDS, (good, good), strict=True)), dict(zip(IDS, (good, bad), strict=True))
    assert task_interval(ours, teachers, dict.fromkeys(IDS, bad)) == pytest.approx((100, 100, 100))
    assert np.isnan(task_interval(ours, dict.fromkeys(IDS, bad), dict.fromkeys(IDS, bad))).all()
    # A teacher that rarely succeeds is at random's level in some resamples.
    rare = Score([0.0] * 8 + [10.0] * 2, [1] * 10)
    mean, low, high = task_interval({"a": rare}, {"a": rare}, {"a": bad})
    assert mean == pytest.approx(100) and 0 < low < 100 < high


def test_both_algorithms_train_the_same_network_by_default():
    folder = Path(__file__).parent.parent / "hyperparams"
    settings = [yaml.safe_load((folder / f"{algo}.yml").read_text()) for algo in ("mtpd", "mtdqn")]
    for name in set(settings[0]) | set(settings[1]):
        networks = [(own[name]["policy"], own[name].get("policy_kwargs")) for own in settings]
        assert networks[0] == networks[1]


def test_evaluations_are_logged(teachers, capsys):
    model = make(teachers, n_eval_episodes=2, eval_freq=200, verbose=1).learn(400)
    assert [entry["task"] for entry in model.evaluations[:2]] == IDS
    assert [entry["n_timesteps"] for entry in model.evaluations] == [200, 200, 400, 400]
    assert "geometric mean" in capsys.readouterr().out


def test_updates_begin_although_the_memories_hold_less_than_learning_starts(teachers):
    env = make_env(4)
    model = make(teachers, env, buffer_size=100, learning_starts=300).learn(600)
    assert model._n_updates > 0 and model.replay_buffer.size() * 4 < 300


# --- Bad input


def test_bad_input_is_refused_at_construction(teachers):
    cases = [
        ({"teachers": {"CartPole-v1": teachers["CartPole-v1"]}}, "teachers has none for MountainCar-v0"),
        ({"teachers": {**teachers, "Pong": "x"}}, "teachers: Unknown task 'Pong': choose one of CartPole-v1"),
        ({"teachers": str(teachers["CartPole-v1"])}, "teachers maps the names of tasks"),
        (
            {"teachers": {name: teachers["CartPole-v1"] for name in IDS}},
            r"teacher of MountainCar-v0.* the task has Discrete\(3\)",
        ),
        ({"temperature": {"CartPole-v1": 1.0}}, "temperature has none for MountainCar-v0"),
        ({"teacher": teachers["CartPole-v1"]}, "takes no teacher: every task has its own, in teachers="),
        ({"n_teacher_episodes": 3}, "takes no n_teacher_episodes: n_eval_episodes"),
        ({"recording": "folder"}, "several tasks have no recordings"),
        ({"temperature": {"CartPole": 1.0}}, "temperature: Unknown task 'CartPole'"),
        ({"temperature": {"CartPole-v1": 0.0, "MountainCar-v0": 1.0}}, "temperature must be a positive finite number"),
        ({"temperature": -1.0}, "temperature must be a positive finite number"),
        ({"task_sampling": "both"}, "Unknown task_sampling 'both': choose one of random, equal"),
        ({"loss": "kll"}, "Unknown loss 'kll'"),
        ({"env": make_vec_env("CartPole-v1")}, "The environment has no tasks"),
        ({"env": VecNormalize(make_env(), norm_obs_keys=["obs"])}, "VecNormalize mixes the statistics"),
        ({"policy_kwargs": {"task_actions": [3, 3]}}, r"made for tasks with \[3, 3\] actions; these have \[2, 3\]"),
    ]
    for kwargs, message in cases:
        with pytest.raises(ValueError, match=message):
            make(**{"teachers": teachers, **kwargs})
    with pytest.raises(ValueError, match="VecNormalize mixes the statistics"):
        make(teachers).set_env(VecNormalize(make_env(), norm_obs_keys=["obs"]))


def test_agents_of_several_tasks_are_no_teachers(teachers, tmp_path: Path):
    model = make(teachers)
    model.save(tmp_path / "model")
    for source in (model, tmp_path / "model.zip", MultiTaskDQN("MultiTaskMlpPolicy", make_env(), buffer_size=10)):
        with pytest.raises(TeacherError, match="plays several tasks: cut one out"):
            load_teacher(source)


def test_multi_task_dqn_refuses_what_its_memories_cannot_do():
    for kwargs, message in (({"n_steps": 3}, "n_steps must be 1, not 3"), ({"task_sampling": "both"}, "task_sampling")):
        with pytest.raises(ValueError, match=message):
            MultiTaskDQN("MultiTaskMlpPolicy", make_env(), device="cpu", **kwargs)
    with pytest.raises(ValueError, match="VecNormalize mixes the statistics"):
        MultiTaskDQN("MultiTaskMlpPolicy", VecNormalize(make_env(), norm_obs_keys=["obs"]), device="cpu")


def test_teachers_of_other_environments_are_refused(teachers):
    model = DQN("MlpPolicy", "MountainCar-v0", device="cpu")
    env = make_vec_env("MultiTask-v0", env_kwargs={"env_ids": ["MountainCar-v0"]})
    other = load_teacher(model, env_id="MountainCarContinuous-v0")
    with pytest.raises(ValueError, match=r"was trained on MountainCarContinuous-v0.*allow_env_mismatch=True"):
        make({"MountainCar-v0": other}, env)
    make({"MountainCar-v0": other}, env, allow_env_mismatch=True)


# --- The Zoo


def test_zoo_trains_and_enjoys(teachers, tmp_path: Path):
    env_kwargs = ["--env-kwargs", "env_ids:['CartPole-v1','MountainCar-v0']", "pad:True"]
    sources = "dict([" + ",".join(f"('{name}',r'{path}')" for name, path in teachers.items()) + "])"
    train = ["-m", "rl_zoo3.train", "--algo", "mtpd", "--env", "MultiTask-v0", *env_kwargs, "-n", "600", "-f", "logs"]
    params = ["-params", f"teachers:{sources}", "learning_starts:100", "n_eval_episodes:2"]
    result = run_python(tmp_path, *train, "--eval-freq", "200", *params)
    assert "geometric mean" in result.stdout
    run = ["--env", "MultiTask-v0", "-f", "logs"]
    run_python(tmp_path, "-m", "rl_zoo3.enjoy", "--algo", "mtpd", *run, "-n", "30", "--no-render")
    run_python(tmp_path, "-m", "rl_zoo3.record_video", "--algo", "mtpd", *run, "-n", "60", "--deterministic")
    assert list((tmp_path / "logs" / "mtpd" / "MultiTask-v0_1" / "videos").glob("*.mp4"))
    saved = str(tmp_path / "logs" / "mtpd" / "MultiTask-v0_1" / "MultiTask-v0.zip")
    run_python(
        tmp_path, *train, "--eval-freq", "-1", "-i", saved, "-params", "learning_starts:100", "n_eval_episodes:0"
    )
    mtdqn = ["mtdqn" if argument == "mtpd" else argument for argument in train]
    run_python(tmp_path, *mtdqn, "--eval-freq", "-1", "--vec-env", "subproc", "-params", "learning_starts:100")
    run_python(tmp_path, "-m", "rl_zoo3.enjoy", "--algo", "mtdqn", *run, "-n", "30", "--no-render")
