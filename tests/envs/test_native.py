"""``NativeAtari``: what stands around it finds what the games in Python would give."""

import warnings
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import A2C
from stable_baselines3.common.atari_wrappers import AtariWrapper
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor, load_results
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecFrameStack,
    VecNormalize,
    VecTransposeImage,
)

from sb3_distill import NativeAtari
from sb3_distill.envs.atari import NativeAtariVecEnv
from sb3_distill.envs.copies import copy_env
from sb3_distill.envs.inspection import monitor_folder
from sb3_distill.envs.native import native_or_same
from sb3_distill.envs.recipe import EnvRecipe, NamedWrapper

BREAKOUT = "BreakoutNoFrameskip-v4"
# No FIRE to press and no no-ops: nothing differs at the start.
PACMAN = "MsPacmanNoFrameskip-v4"
PLAIN = {"noop_max": 0, "terminal_on_life_loss": False}


FORKED = partial(SubprocVecEnv, start_method="fork")


def games(env_id=BREAKOUT, n_envs=1, vec_env_cls=DummyVecEnv, seed=3, env_kwargs=None, **kwargs):
    env_kwargs = {"render_mode": None, **(env_kwargs or {})}
    return make_atari_env(env_id, n_envs, seed, env_kwargs=env_kwargs, vec_env_cls=vec_env_cls, **kwargs)


def is_native(env):
    return isinstance(env.unwrapped, NativeAtariVecEnv)


def as_the_zoo_does(env):
    return VecTransposeImage(VecFrameStack(VecNormalize(env, norm_obs=False), 4))


def test_equal_actions_equal_rewards_and_ends():
    """A whole game, with its end: only a few pixels in a thousand differ."""
    pair = [as_the_zoo_does(wrap(games(PACMAN, wrapper_kwargs=PLAIN))) for wrap in (NativeAtari, lambda env: env)]
    assert [is_native(env) for env in pair] == [True, False]
    assert pair[0].observation_space == pair[1].observation_space
    rng = np.random.default_rng(0)
    first, second = (env.reset() for env in pair)
    differing, ended = [], False
    while not ended:
        assert first.shape == second.shape and first.dtype == second.dtype
        differing.append((first != second).mean())
        actions = rng.integers(pair[0].action_space.n, size=1)
        (first, *ours), (second, *theirs) = (env.step(actions) for env in pair)
        assert np.array_equal(ours[0], theirs[0]) and np.array_equal(ours[1], theirs[1])
        ended = bool(ours[1][0])
    assert np.mean(differing) < 0.006
    our_info, their_info = ours[2][0], theirs[2][0]
    assert our_info["episode"]["r"] == their_info["episode"]["r"] > 0
    assert our_info["episode"]["l"] - their_info["episode"]["l"] in range(4)
    assert our_info["TimeLimit.truncated"] == their_info["TimeLimit.truncated"]
    assert our_info["terminal_observation"].shape == their_info["terminal_observation"].shape == (4, 84, 84)
    assert (our_info["terminal_observation"] != their_info["terminal_observation"]).mean() < 0.02


def test_the_layout_of_a_frame_is_that_of_the_games():
    python = games()
    env = NativeAtari(games())
    assert env.observation_space == python.observation_space
    assert env.reset().shape == (1, 84, 84, 1)
    obs, _, dones, infos = env.step([0])
    while not dones[0]:
        obs, _, dones, infos = env.step([0 if "executed_action" in infos[0] else 3])
    assert obs.shape == (1, 84, 84, 1) and infos[0]["terminal_observation"].shape == (84, 84, 1)


def test_seeds_are_those_of_the_games():
    def play(seed):
        env = NativeAtari(games(n_envs=2, seed=seed))
        frames = [env.reset()] + [env.step([2, 3])[0] for _ in range(10)]
        return np.array(frames)

    assert np.array_equal(play(3), play(3))
    assert not np.array_equal(play(3), play(4))


@pytest.mark.parametrize("vec_env_cls", [DummyVecEnv, FORKED], ids=["dummy", "subproc"])
def test_monitor_files_go_on_and_processes_end(tmp_path, vec_env_cls):
    python = games(
        PACMAN,
        2,
        vec_env_cls,
        env_kwargs={"max_num_frames_per_episode": 800},
        wrapper_kwargs={**PLAIN, "clip_reward": False},
        monitor_dir=str(tmp_path),
    )
    processes = getattr(python, "processes", [])
    env = NativeAtari(python)
    assert is_native(env) and not any(process.is_alive() for process in processes)
    assert monitor_folder(env) == tmp_path
    env.reset()
    episodes = []
    while len(episodes) < 2:
        episodes += [info["episode"] for info in env.step([1, 3])[3] if "episode" in info]
    env.close()
    written = load_results(str(tmp_path))
    assert sorted(written["r"]) == sorted(episode["r"] for episode in episodes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.monitor.csv", "1.monitor.csv"]


def test_evaluations_count_whole_games(tmp_path):
    """The lives that end an episode are those of each environment's own wrappers; the score is that of the game."""
    env = as_the_zoo_does(NativeAtari(games(n_envs=2)))
    model = A2C("CnnPolicy", env, n_steps=2, seed=0, device="cpu").learn(8)
    assert is_native(model.get_env())
    for lives_end in (True, False):
        folder = tmp_path / str(lives_end)
        python = games(
            env_kwargs={"max_num_frames_per_episode": 400},
            wrapper_kwargs={"terminal_on_life_loss": lives_end},
            monitor_dir=str(folder),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            eval_env = as_the_zoo_does(NativeAtari(python))
            returns, lengths = evaluate_policy(model, eval_env, 1, deterministic=False, return_episode_rewards=True)
        eval_env.close()
        written = load_results(str(folder))
        assert list(written["r"]) == returns and list(written["l"]) == lengths


class Inverted(gym.ObservationWrapper):
    def observation(self, obs):
        return 255 - obs


def atari(env_id=BREAKOUT, env_kwargs=None, **wrapper_kwargs):
    return lambda: AtariWrapper(Monitor(gym.make(env_id, **(env_kwargs or {}))), **wrapper_kwargs)


@pytest.mark.parametrize("vec_env_cls", [DummyVecEnv, FORKED], ids=["dummy", "subproc"])
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        ([lambda: Inverted(atari()())], "they have the wrapper Inverted, which has no native counterpart"),
        ([lambda: gym.make("CartPole-v1")], "CartPoleEnv is not an Atari game"),
        ([atari(env_kwargs={"mode": 4})], "their argument mode has no native counterpart"),
        ([atari(), atari(noop_max=5)], "their settings differ from each other"),
    ],
    ids=["wrapper", "no game", "argument", "mixed"],
)
def test_what_has_no_counterpart_stays_as_it_is(vec_env_cls, make, reason):
    python = vec_env_cls(make)
    with pytest.warns(UserWarning, match=f"NativeAtari leaves the games as they are: {reason}") as caught:
        env = NativeAtari(python)
    assert len(caught) == 1
    assert env.unwrapped is python and env.observation_space == python.observation_space
    obs = env.reset()
    obs, *_ = env.step([0] * len(make))
    assert env.observation_space.contains(obs[0])
    env.close()


def test_rendered_games_stay_as_they_are():
    with pytest.warns(UserWarning, match=r"rendered \(render_mode='rgb_array'; .* env_kwargs={\"render_mode\": None}"):
        env = NativeAtari(games(env_kwargs={"render_mode": "rgb_array"}))
    env.reset()
    assert env.render().shape == (210, 160, 3)


def test_our_algorithms_take_whole_stacks():
    """They replace the games by themselves, and need every frame once."""
    env = NativeAtari(games(n_envs=2))
    env.seed(5)
    ours = native_or_same(VecTransposeImage(VecFrameStack(env, 4)))
    assert isinstance(ours.venv, NativeAtariVecEnv)
    env.seed(5)
    theirs = VecTransposeImage(VecFrameStack(env, 4))
    assert np.array_equal(ours.reset(), theirs.reset())
    assert native_or_same(ours) is ours
    for _ in range(20):
        assert np.array_equal(ours.step([2, 3])[0], theirs.step([2, 3])[0])


def test_our_algorithms_say_why_games_stay_in_python(capsys):
    for env, reason in (
        (
            DummyVecEnv([lambda: Inverted(atari()())]),
            "they have the wrapper Inverted, which has no native counterpart.",
        ),
        (FORKED([atari()]), "they are in processes of their own, which only sb3_distill.NativeAtari ends."),
        (DummyVecEnv([lambda: gym.make("CartPole-v1")]), None),
    ):
        assert native_or_same(env, verbose=1) is env
        assert capsys.readouterr().out == ("" if reason is None else f"Stepping the Atari games in Python: {reason}\n")
        env.close()


def test_copies_are_native_too():
    env = NativeAtari(games())
    env.seed(1)
    copy = copy_env(env)
    copy.seed(1)
    assert is_native(copy) and copy.unwrapped is not env.unwrapped
    assert np.array_equal(copy.reset(), env.reset())


def test_scores_are_measured_as_the_option_says():
    """``evaluate --native`` decides, not the run."""
    python = games()
    recipe = EnvRecipe(vec_wrappers=[NamedWrapper("sb3_distill.NativeAtari")])
    assert recipe.wrap_vec(python) is python


def test_the_commands_of_the_zoo(zoo, tmp_path):
    run = ["--algo", "a2c", "--env", PACMAN, "-f", "logs"]
    options = ["vec_env_wrapper:'sb3_distill.NativeAtari'", "n_envs:2", "frame_stack:2"]
    evaluation = ["--eval-freq", 40, "--eval-episodes", 1]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="NativeAtari")
        zoo(tmp_path, "train", *run, "-n", 40, *evaluation, "--seed", 1, "-params", *options)
        zoo(tmp_path, "enjoy", *run, "-n", 10, "--no-render")
    folder = tmp_path / "logs" / "a2c" / f"{PACMAN}_1"
    assert len(np.load(folder / "evaluations.npz")["results"]) == 1
    assert len(list(folder.glob("*.monitor.csv"))) == 2
