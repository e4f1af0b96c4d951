"""A teacher and its student see different keys of Dict observations."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import A2C, DQN
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv, VecNormalize

from sb3_distill import QPD, Answers, PolicyDistillation, RealTimeDistillDQN, StackedEntries, load_teacher
from sb3_distill.base.resume.resuming import RUN_STATE
from sb3_distill.buffers.recordings import Recording
from sb3_distill.envs.views import ObservationView
from sb3_distill.fit.fit import fit
from tests.helpers import same

KEYS: dict[str, Any] = {"teacher_keys": "state", "student_keys": "positions"}
KWARGS: dict[str, Any] = {
    "learning_starts": 32,
    "buffer_size": 600,
    "n_teacher_episodes": 1,
    "device": "cpu",
    "seed": 0,
}


def make_env(env_id: str = "CartPole-v1", n_envs: int = 2, entries: tuple[int, ...] = (0, 2), **kwargs: Any) -> VecEnv:
    return make_vec_env(
        env_id, n_envs, seed=0, wrapper_class=StackedEntries, wrapper_kwargs={"entries": entries}, **kwargs
    )


def make(teacher: Any, env: Any = None, policy: str = "MlpPolicy", **kwargs: Any) -> PolicyDistillation:
    return PolicyDistillation(policy, env or make_env(), teacher, **{**KWARGS, **KEYS, **kwargs})


def test_each_sees_its_own_part(cartpole_teacher: Path) -> None:
    model = make(cartpole_teacher, rollout_policy="linear").learn(200)
    assert (
        model.observation_space
        == spaces.Box(
            np.tile(make_env().observation_space["positions"].low[:2], 4),  # type: ignore[index]
            np.tile(make_env().observation_space["positions"].high[:2], 4),  # type: ignore[index]
        )
    )
    stored, answers = model.replay_buffer.stores[""], model.replay_buffer.answers["q_values"]
    assert stored.shape[2:] == (8,)
    # The teacher's answers are those to the whole state, of which the newest positions are a part.
    env = make_env()
    obs: Any = env.reset()
    expected = load_teacher(cartpole_teacher, device="cpu").answer(th.as_tensor(obs["state"]))[0].q_values
    assert np.array_equal(stored[0], obs["positions"]) and np.allclose(answers[0], expected)
    assert np.array_equal(obs["positions"][:, -2:], obs["state"][:, [0, 2]])
    assert model._reference is not None and model._reference.score is not None


def test_several_keys_are_a_dict(cartpole_teacher: Path) -> None:
    model = make(
        cartpole_teacher, policy="MultiInputPolicy", student_keys=["positions", "state"], teacher_keys=["state"]
    )
    assert isinstance(model.learn(100).observation_space, spaces.Dict)
    assert (model.student_keys, model.teacher_keys) == (["positions", "state"], "state")
    dict_teacher = DQN("MultiInputPolicy", make_env(n_envs=1), buffer_size=10, device="cpu", seed=0)
    student = make(dict_teacher, teacher_keys=None).learn(100)
    assert student.observation_space.shape == (8,)


@pytest.mark.parametrize("form", ["model", "zip"])
def test_a_student_knows_its_own_space(cartpole_teacher: Path, tmp_path: Path, form: str) -> None:
    model = make(cartpole_teacher).learn(100)
    model.save(tmp_path / "student")
    whole: Any = make_env().reset()
    expected = model.predict(whole["positions"], deterministic=True)[0]
    for loaded in (
        PolicyDistillation.load(tmp_path / "student", device="cpu"),
        PolicyDistillation.load(tmp_path / "student", make_env(n_envs=3), device="cpu"),
    ):
        assert loaded.observation_space == model.observation_space and loaded.student_keys == "positions"
        assert np.array_equal(loaded.predict(whole, deterministic=True)[0], expected)
    agent = load_teacher(model if form == "model" else tmp_path / "student.zip", device="cpu")
    assert agent.observation_space == model.observation_space and agent.facts.student_keys == "positions"
    assert np.array_equal(agent.predict(whole["positions"])[0], expected)
    # It goes on with the environment that it gets later.
    loaded.learn(60)
    loaded.set_env(make_env(n_envs=3))
    assert loaded.learn(60).env.observation_space == model.observation_space
    assert np.isfinite(evaluate_policy(loaded, make_env(), 2, warn=False)[0])


def test_a_run_goes_on_to_the_same_bits(cartpole_teacher: Path, tmp_path: Path) -> None:
    straight = make(cartpole_teacher).learn(400)
    make(cartpole_teacher).learn(200, CheckpointCallback(50, str(tmp_path)))
    resumed = make(cartpole_teacher)
    resumed.load_run_state(next(tmp_path.glob(RUN_STATE)))
    resumed.learn(400 - resumed.num_timesteps, CheckpointCallback(50, str(tmp_path)))
    assert same(resumed.policy, straight.policy)


def test_a_recording_holds_what_the_student_sees(cartpole_teacher: Path, tmp_path: Path) -> None:
    played = make(cartpole_teacher).learn(200)
    make(cartpole_teacher, recording=tmp_path / "play").learn(200)
    read = make(cartpole_teacher, recording=tmp_path / "play").learn(200)
    assert same(played.policy, read.policy)
    recording = Recording(tmp_path / "play")
    assert recording.parts[""].shape == (8,) and next(recording.finished_episodes()).observations.shape[1:] == (8,)
    with pytest.raises(ValueError, match=r"student_keys='positions', not 'state'"):
        make(cartpole_teacher, recording=tmp_path / "play", student_keys="state", env=make_env()).learn(200)


@pytest.mark.parametrize("keys", [None, ["positions", "state"]])
def test_a_policy_for_one_array_says_how_it_sees_one(cartpole_teacher: Path, keys: Any) -> None:
    said = r"MlpPolicy sees one array.*Dict of positions, state.*'MultiInputPolicy'.*student_keys='positions'"
    with pytest.raises(ValueError, match=said):
        make(cartpole_teacher, student_keys=keys)
    with pytest.raises(ValueError, match=r"MlpPolicy sees one array.*'MultiInputPolicy'[^,]*$"):
        RealTimeDistillDQN("MlpPolicy", make_env(), {"small": "MultiInputPolicy"})


def test_a_recording_of_several_keys(cartpole_teacher: Path, tmp_path: Path) -> None:
    """The student cannot tell it from the game, and each part is what it saw."""
    kwargs: dict[str, Any] = {"policy": "MultiInputPolicy", "student_keys": ["positions", "state"]}
    played = make(cartpole_teacher, **kwargs).learn(200)
    make(cartpole_teacher, **kwargs, recording=tmp_path / "play").learn(200)
    read = make(cartpole_teacher, **kwargs, recording=tmp_path / "play").learn(200)
    assert same(played.policy, read.policy)
    recording = Recording(tmp_path / "play")
    assert {key: space.shape for key, space in recording.observation_space.items()} == {  # type: ignore[union-attr]
        "positions": (8,),
        "state": (4,),
    }
    episode: Any = next(recording.finished_episodes()).observations
    assert np.array_equal(episode["positions"][:, -2:], episode["state"][:, [0, 2]])
    # A teacher of these keys answers to them without the game.
    teacher = DQN("MultiInputPolicy", make_env(n_envs=1), buffer_size=10, device="cpu", seed=0)
    found = fit(str(tmp_path / "play"), teacher, n_timesteps=200, device="cpu")
    assert found.model.observation_space.keys() == {"positions", "state"}
    with pytest.raises(ValueError, match=r"student_keys=\['positions', 'state'\], not 'state'"):
        make(cartpole_teacher, recording=tmp_path / "play", student_keys="state").learn(200)


def test_evaluations_and_processes(cartpole_teacher: Path, tmp_path: Path) -> None:
    env = make_env(vec_env_cls=SubprocVecEnv)
    callback = EvalCallback(make_env(n_envs=1), eval_freq=50, n_eval_episodes=1, best_model_save_path=str(tmp_path))
    model = make(cartpole_teacher, env, rollout_policy="student", students={"other": "MlpPolicy"}).learn(100, callback)
    env.close()
    assert callback.last_mean_reward > 0 and model.student_model("other").observation_space.shape == (8,)


def test_statistics_are_those_of_the_key(gaussian_teacher: A2C, tmp_path: Path) -> None:
    """Of a Dict that VecNormalize normalizes, the teacher sees its part as it was before."""
    env = VecNormalize(make_env("Pendulum-v1", entries=(0, 1)))
    kwargs = {**KWARGS, **KEYS, "students": {"other": {"weight_bits": 8}}, "full_precision_fraction": 0.0}
    model = QPD("MlpPolicy", env, gaussian_teacher, **kwargs).learn(200)
    raw = model.replay_buffer.stores[""][:2, 0]
    assert np.abs(raw).max() <= 1
    statistics = env.obs_rms["positions"]
    expected = np.clip((raw - statistics.mean) / np.sqrt(statistics.var + env.epsilon), -10, 10)
    assert np.allclose(model._normalizer.normalize_obs(raw), expected, atol=1e-5)
    own = load_teacher(model, device="cpu")
    whole = {"positions": raw, "state": np.zeros((2, 3), np.float32)}
    assert own.normalization is not None and own.normalization.parts[None][0].shape == (8,)
    assert np.allclose(own.predict(raw)[0], model.predict(env.normalize_obs(whole), deterministic=True)[0], atol=1e-5)
    model.save(tmp_path / "student")
    env.save(str(tmp_path / "vecnormalize.pkl"))
    assert np.allclose(load_teacher(tmp_path / "student.zip", device="cpu").predict(raw)[0], own.predict(raw)[0])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"student_keys": "position"}, r"student_keys: Unknown key 'position'.*Did you mean 'positions'\?"),
        ({"teacher_keys": ["state", "all"]}, r"teacher_keys: Unknown key 'all'.*positions.*state"),
        ({"student_keys": []}, r"student_keys must be a key or a list of keys, not \[\].*positions, state"),
        ({"student_keys": {"a": "positions"}}, r"student_keys must be a key or a list of keys.*cannot be renamed"),
        ({"teacher_keys": ["state", "state"]}, r"teacher_keys names a key twice"),
        ({"policy": "MultiInputPolicy"}, r"'MultiInputPolicy' is for Dict observations, and the student's are Box"),
        ({"student_keys": 3}, r"student_keys must be a key or a list of keys, not 3"),
        ({"teacher_keys": None}, r"The environment has the keys positions, state: name with teacher_keys"),
    ],
)
def test_bad_keys_are_named(cartpole_teacher: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(cartpole_teacher, **keys)


def test_teacher_keys_are_asked_for_where_they_help() -> None:
    """Where only a shape differs, they are named already, or the keys are the same."""

    class Parts(gym.Env):
        observation_space = spaces.Dict({"a": spaces.Box(-1, 1, (3,)), "b": spaces.Box(-1, 1, (4,))})
        action_space = spaces.Discrete(2)

    def refusal(observed: spaces.Space, **keys: Any) -> str:
        own: Any = type("Own", (), {"observation_space": observed, "action_space": Parts.action_space})()
        own.answer = lambda obs, state, starts: (Answers(q_values=np.zeros((len(starts), 2))), None)
        with pytest.raises(ValueError, match="differ in their observations") as caught:
            PolicyDistillation("MultiInputPolicy", Parts(), own, n_teacher_episodes=0, device="cpu", **keys)
        return str(caught.value)

    hint = "The environment has the keys a, b: name with teacher_keys what the teacher sees."
    box = spaces.Box(-1, 1, (4,))
    assert refusal(box).endswith(hint) and refusal(spaces.Dict({"a": box})).endswith(hint)
    assert refusal(spaces.Dict({"a": box, "b": box})).endswith("Key 'a': the shape (4,) against (3,).")
    named = "the shape (4,) against (3,). The environment has the keys a, b, and teacher_keys='a' names this one."
    assert refusal(box, teacher_keys="a").endswith(named)


def test_keys_need_a_dict(cartpole_teacher: Path) -> None:
    with pytest.raises(
        ValueError, match=r"student_keys names keys of Dict observations.*are Box.*wrap the environment"
    ):
        make(cartpole_teacher, env="CartPole-v1")


def test_an_observation_without_the_key_is_refused(cartpole_teacher: Path) -> None:
    model = make(cartpole_teacher)
    with pytest.raises(ValueError, match=r"Unknown key 'positions': choose one of state"):
        model.predict({"state": np.zeros(4, np.float32)})


def test_a_view_shows_any_algorithm_a_part() -> None:
    """PPO alone on what the student sees: the Zoo's vec_env_wrapper names the view."""
    view = ObservationView(make_env(), student_keys="positions")
    assert A2C("MlpPolicy", view, device="cpu").learn(10).observation_space.shape == (8,)
