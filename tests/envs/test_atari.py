"""Natively stepped games behave as SB3's Python wrappers do."""

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.atari_wrappers import AtariWrapper, MaxAndSkipEnv, WarpFrame
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.monitor import Monitor, load_results
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecFrameStack,
    VecNormalize,
    VecTransposeImage,
)

from sb3_distill import PolicyDistillation, load_teacher
from sb3_distill.buffers.frames import FrameStore
from sb3_distill.envs.atari import NativeAtariVecEnv
from sb3_distill.envs.native import native_atari
from tests.buffers.images import n_planes
from tests.helpers import TRAINED_AGENTS

PONG, BREAKOUT = "PongNoFrameskip-v4", "BreakoutNoFrameskip-v4"


def python_env(env_id=BREAKOUT, n_envs=2, n_stack=4, **kwargs):
    return VecTransposeImage(VecFrameStack(make_atari_env(env_id, n_envs, seed=0, **kwargs), n_stack))


def play(env, n_steps, seed=0):
    rng = np.random.default_rng(seed)
    yield env.reset(), None, None, None
    for _ in range(n_steps):
        yield env.step(rng.integers(env.action_space.n, size=env.num_envs))


def test_spaces_are_those_of_the_python_wrappers():
    env = python_env()
    native = native_atari(env)
    assert native.observation_space == env.observation_space
    assert native.action_space == env.action_space
    assert native.get_attr("spec")[0].id == BREAKOUT
    assert all(native.env_is_wrapped(Monitor))
    env.close()


def test_same_seed_same_bits():
    runs = []
    for _ in range(2):
        native = native_atari(python_env())
        native.seed(5)
        runs.append(list(play(native, 200)))
    for first, second in zip(*runs, strict=True):
        assert np.array_equal(first[0], second[0])
        if first[1] is not None:
            assert np.array_equal(first[1], second[1]) and np.array_equal(first[2], second[2])


def test_stacks_shift_and_are_zero_padded_after_every_end():
    native = native_atari(python_env())
    last, n_ends = None, 0
    for obs, _, dones, infos in play(native, 600):
        if dones is None:
            assert not obs[:, :-1].any() and obs[:, -1].any()
        else:
            for env in range(native.num_envs):
                if dones[env]:
                    n_ends += 1
                    assert not obs[env, :-1].any()
                    assert np.array_equal(infos[env]["terminal_observation"][:-1], last[env, 1:])
                else:
                    assert np.array_equal(obs[env, :-1], last[env, 1:])
                    assert "terminal_observation" not in infos[env]
        last = obs.copy()
    assert n_ends > 5


def test_observations_handed_out_are_never_changed():
    native = native_atari(python_env())
    kept = [(obs, obs.copy()) for obs, *_ in play(native, 100)]
    assert all(np.array_equal(obs, copy) for obs, copy in kept)


def test_lives_end_episodes_and_games_end_scores():
    native = native_atari(python_env(n_envs=4))
    n_ends = n_games = n_fires = 0
    raw = 0.0
    clipped = 0.0
    for _, rewards, dones, infos in play(native, 800):
        if dones is None:
            continue
        assert set(np.unique(rewards)) <= {-1.0, 0.0, 1.0}
        clipped += rewards.sum()
        n_ends += dones.sum()
        n_games += sum("episode" in info for info in infos)
        n_fires += sum("executed_action" in info for info in infos)
        raw += sum(info["episode"]["r"] for info in infos if "episode" in info)
    # Five lives make a game; FIRE replaces three of four random actions after each of the first four.
    assert n_games > 4 and 3.5 * n_games < n_ends < 7 * n_games
    assert n_fires > n_games
    assert 0 < raw <= clipped + 20


def test_whole_games_where_lives_do_not_end_them():
    env = python_env(wrapper_kwargs={"terminal_on_life_loss": False, "clip_reward": False})
    native = native_atari(env)
    ends = sum(
        int(dones.sum()) - sum("episode" in info for info in infos)
        for _, _, dones, infos in play(native, 400)
        if dones is not None
    )
    assert ends == 0


def test_monitor_files_go_on(tmp_path):
    native = native_atari(python_env(n_envs=2, monitor_dir=str(tmp_path)))
    episodes = [
        info["episode"]
        for _, _, dones, infos in play(native, 700)
        if dones is not None
        for info in infos
        if "episode" in info
    ]
    native.close()
    written = load_results(str(tmp_path))
    assert len(written) == len(episodes) > 0
    assert sorted(written["r"]) == sorted(episode["r"] for episode in episodes)
    assert all(length % 4 == length % 1 or length > 100 for length in written["l"])


def test_few_pixels_differ():
    """Same actions from the same start: only the order of grey conversion and maximum differs."""
    env = DummyVecEnv([lambda: WarpFrame(MaxAndSkipEnv(Monitor(gym.make(PONG)), skip=4))])
    env = VecTransposeImage(VecFrameStack(env, 4))
    native = native_atari(env)
    differing = []
    for ours, theirs in zip(play(native, 150), play(env, 150), strict=True):
        difference = np.abs(ours[0].astype(int) - theirs[0].astype(int))
        differing.append((difference > 0).mean())
        if ours[1] is not None:
            assert np.array_equal(ours[1], theirs[1]) and np.array_equal(ours[2], theirs[2])
    assert np.mean(differing) < 0.003


@pytest.mark.parametrize("n_stack", [3, 4])
@pytest.mark.parametrize("wrappers", [{}, {"terminal_on_life_loss": False}])
def test_one_frame_per_step_reaches_the_memory(n_stack, wrappers):
    native = native_atari(python_env(n_envs=2, n_stack=n_stack, wrapper_kwargs=wrappers))
    store = FrameStore(301, 2, (n_stack, 84, 84))
    history = []
    for row, (obs, *_) in enumerate(play(native, 300)):
        store[row] = obs
        history.append(obs)
    assert n_planes(store) <= 2 * 301 + 1
    assert all(np.array_equal(store[np.full(2, row), np.arange(2)], obs) for row, obs in enumerate(history))


def test_evaluation_finds_the_same_type_of_environment(recwarn):
    native = native_atari(python_env(n_envs=1))

    class Model:
        def get_env(self):
            return native

        logger = num_timesteps = None

    callback = EvalCallback(python_env(n_envs=1))
    callback.init_callback(Model())
    assert not [warning for warning in recwarn if "not of the same type" in str(warning.message)]


class Unknown(gym.Wrapper):
    pass


def atari(**wrapper_kwargs):
    return AtariWrapper(Monitor(gym.make(PONG)), **wrapper_kwargs)


@pytest.mark.parametrize(
    "make",
    [
        lambda: make_vec_env("CartPole-v1", 1),
        lambda: DummyVecEnv([lambda: Unknown(atari())]),
        lambda: DummyVecEnv([lambda: Monitor(atari())]),
        lambda: DummyVecEnv([lambda: atari(action_repeat_probability=0.25)]),
        lambda: DummyVecEnv([lambda: Monitor(gym.make(PONG))]),
        lambda: DummyVecEnv([lambda: AtariWrapper(Monitor(gym.make("ALE/Pong-v5")))]),
        lambda: VecNormalize(VecTransposeImage(DummyVecEnv([atari])), norm_obs=False),
        lambda: DummyVecEnv([atari, lambda: atari(noop_max=5)]),
    ],
    ids=["no game", "wrapper", "outer monitor", "sticky", "no AtariWrapper", "own frame skip", "normalised", "mixed"],
)
def test_what_has_no_counterpart_stays_as_it_is(make):
    env = make()
    assert native_atari(env) is None
    env.close()


def test_other_processes_stay_as_they_are():
    env = SubprocVecEnv([atari], start_method="fork")
    assert native_atari(env) is None
    env.close()


def test_distillation_steps_natively_and_repeats_itself():
    from stable_baselines3 import DQN

    teacher = DQN("CnnPolicy", python_env(PONG, 1), buffer_size=10, seed=0, device="cpu")
    runs = []
    for _ in range(2):
        model = PolicyDistillation(
            "Net5Policy",
            python_env(PONG, 2),
            teacher=teacher,
            n_teacher_episodes=0,
            learning_starts=32,
            batch_size=8,
            seed=1,
            device="cpu",
        )
        assert isinstance(model.env.unwrapped, NativeAtariVecEnv)
        runs.append(model.learn(96).policy.q_net.features_extractor.cnn[0].weight)
    assert np.array_equal(*[weight.detach().numpy() for weight in runs])


@pytest.mark.slow
@pytest.mark.skipif(not (TRAINED_AGENTS / "dqn").is_dir(), reason="no trained agents at hand: set RL_TRAINED_AGENTS")
@pytest.mark.parametrize(("env_id", "n_episodes"), [(PONG, 24), (BREAKOUT, 120)])
def test_both_paths_give_the_same_scores(env_id, n_episodes):
    """The gate for collecting natively: mean returns agree within three standard errors."""
    teacher = load_teacher(TRAINED_AGENTS / "dqn" / f"{PONG}_1") if env_id == PONG else None
    returns = []
    env = python_env(env_id, 8)
    for venv in (native_atari(env), env):
        rng = np.random.default_rng(0)
        obs, found = venv.reset(), []
        # Every game that is begun counts: the first few of each environment, so that short ones are not preferred.
        counts = np.zeros(venv.num_envs, dtype=int)
        while counts.min() < n_episodes // venv.num_envs:
            actions = rng.integers(venv.action_space.n, size=venv.num_envs)
            if teacher is not None:
                greedy, _ = teacher.predict(obs)
                actions = np.where(rng.random(venv.num_envs) < 0.05, actions, greedy)
            obs, _, _, infos = venv.step(actions)
            for index, info in enumerate(infos):
                if "episode" in info and counts[index] < n_episodes // venv.num_envs:
                    counts[index] += 1
                    found.append(info["episode"]["r"])
        returns.append(np.array(found))
    native, python = returns
    error = np.sqrt(native.var(ddof=1) / len(native) + python.var(ddof=1) / len(python))
    print(f"{env_id}: native {native.mean():.2f}, Python {python.mean():.2f}, standard error {error:.2f}")
    assert abs(native.mean() - python.mean()) < 3 * error
