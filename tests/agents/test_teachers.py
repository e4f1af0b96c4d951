"""Teachers answer as the SB3 models that they come from."""

import io
import warnings
import zipfile

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import QRDQN, TRPO
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv, SimpleMultiObsEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_distill import PolicyDistillation, load_teacher
from sb3_distill.agents.agent import ActorCriticTeacher, ValueTeacher
from sb3_distill.agents.config import read_yaml
from sb3_distill.agents.files import AgentError
from sb3_distill.agents.normalization import read_normalization
from tests.helpers import TRAINED_AGENTS, preferences

ZOO_RUNS = sorted(path.parent for path in TRAINED_AGENTS.glob("*/*/*.zip"))
SMALL = {"device": "cpu", "seed": 0}


def reference_logits(model, obs):
    obs = model.policy.obs_to_tensor(obs)[0]
    with th.no_grad():
        if isinstance(model, QRDQN):
            return model.quantile_net(obs).mean(dim=1)
        if isinstance(model, DQN):
            return model.q_net(obs)
        return model.policy.get_distribution(obs).distribution.logits


MODELS = {
    "dqn": lambda: DQN("MlpPolicy", "CartPole-v1", buffer_size=10, policy_kwargs={"net_arch": [16, 8]}, **SMALL),
    "dqn-elu": lambda: DQN(
        "MlpPolicy", "CartPole-v1", buffer_size=10, policy_kwargs={"activation_fn": th.nn.ELU}, **SMALL
    ),
    "qrdqn": lambda: QRDQN("MlpPolicy", "CartPole-v1", buffer_size=10, policy_kwargs={"n_quantiles": 7}, **SMALL),
    "ppo": lambda: PPO("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": {"pi": [8], "vf": [16, 4]}}, **SMALL),
    "ppo-relu": lambda: PPO("MlpPolicy", "CartPole-v1", policy_kwargs={"activation_fn": th.nn.ReLU}, **SMALL),
    "a2c": lambda: A2C("MlpPolicy", "CartPole-v1", **SMALL),
    "trpo": lambda: TRPO("MlpPolicy", "CartPole-v1", **SMALL),
    "dqn-linear": lambda: DQN("MlpPolicy", "CartPole-v1", buffer_size=10, policy_kwargs={"net_arch": []}, **SMALL),
    "dqn-cnn": lambda: DQN("CnnPolicy", image_env(), buffer_size=10, **SMALL),
    "qrdqn-cnn": lambda: QRDQN("CnnPolicy", image_env(), buffer_size=10, **SMALL),
    "ppo-cnn": lambda: PPO("CnnPolicy", image_env(), **SMALL),
    "ppo-cnn-separate": lambda: PPO(
        "CnnPolicy", image_env(), policy_kwargs={"share_features_extractor": False}, **SMALL
    ),
    "dqn-discrete-obs": lambda: DQN("MlpPolicy", "CliffWalking-v1", buffer_size=10, **SMALL),
}


def image_env(size=40):
    return FakeImageEnv(screen_height=size, screen_width=size, n_channels=4, discrete=True, channel_first=True)


def sample(space, n=16):
    rng = np.random.default_rng(0)
    if isinstance(space, spaces.Box) and space.dtype != np.uint8:
        return rng.normal(size=(n, *space.shape)).astype(np.float32)
    space.seed(0)
    return np.stack([space.sample() for _ in range(n)])


@pytest.mark.parametrize("name", MODELS)
def test_zip_and_model_answer_alike(name, tmp_path):
    model = MODELS[name]()
    model.save(tmp_path / "agent")
    obs = sample(model.observation_space)
    tensor = th.as_tensor(obs)
    for teacher in (load_teacher(tmp_path / "agent.zip", device="cpu"), load_teacher(model, device="cpu")):
        assert teacher.algo == name.split("-")[0]
        assert teacher.action_space == model.action_space
        assert teacher.observation_space.shape == model.observation_space.shape
        answers, state = teacher.answer(tensor, with_values=True)
        logits = answers.preferences
        assert state is None
        assert not logits.requires_grad and logits.dtype == th.float32
        assert th.allclose(logits, reference_logits(model, obs), rtol=1e-5, atol=1e-6)
        actions, state = teacher.predict(obs, deterministic=True)
        assert state is None and np.array_equal(actions, model.predict(obs, deterministic=True)[0])
        assert teacher.predict(obs[0])[0] == actions[0]
        if isinstance(teacher, ActorCriticTeacher):
            assert teacher.answer(tensor)[0].values is None
            assert th.allclose(
                answers.values,
                model.policy.predict_values(tensor.float() if tensor.is_floating_point() else tensor).squeeze(1),
            )
        else:
            assert answers.q_values is logits and answers.values is None


def test_loading_leaves_the_users_model_as_it_was():
    model = MODELS["dqn"]()
    load_teacher(model)
    assert all(parameter.requires_grad for parameter in model.policy.parameters())
    before = preferences(load_teacher(model), th.zeros(1, 4))
    model.q_net.q_net[0].weight.data.fill_(1.0)
    teacher = load_teacher(model)
    model.q_net.q_net[0].weight.data.fill_(2.0)
    assert not th.equal(preferences(teacher, th.ones(1, 4)), before)


@pytest.mark.parametrize("use_sde", [False, True])
def test_gaussian_teachers(use_sde, tmp_path):
    model = PPO("MlpPolicy", "Pendulum-v1", use_sde=use_sde, **SMALL)
    model.save(tmp_path / "agent")
    teacher = load_teacher(tmp_path / "agent.zip")
    obs = sample(model.observation_space)
    assert np.allclose(teacher.predict(obs)[0], model.predict(obs, deterministic=True)[0], atol=1e-6)
    assert load_teacher(model).n_actions is None
    answers, _ = teacher.answer(th.as_tensor(obs))
    distribution = model.policy.get_distribution(th.as_tensor(obs)).distribution
    assert th.allclose(answers.gaussian.mean, distribution.mean, atol=1e-6)
    assert th.allclose(answers.gaussian.std, distribution.stddev, atol=1e-6)
    with pytest.raises(ValueError, match="mean and a deviation"):
        _ = answers.preferences


def test_exploration_is_that_of_the_weights(tmp_path):
    """State-dependent noise is drawn from deviations that were learned, not from those of a new policy."""
    model = PPO("MlpPolicy", "Pendulum-v1", use_sde=True, policy_kwargs={"log_std_init": -5}, **SMALL)
    model.save(tmp_path / "agent")
    noise = load_teacher(tmp_path / "agent.zip", device="cpu").policy.action_dist.exploration_mat
    assert noise.std().item() == pytest.approx(np.exp(-5), rel=0.5)


@pytest.mark.parametrize(("model_class", "kwargs"), [(DQN, {"buffer_size": 10}), (PPO, {})])
def test_dict_observations(model_class, kwargs, tmp_path):
    model = model_class("MultiInputPolicy", SimpleMultiObsEnv(), **kwargs, **SMALL)
    model.save(tmp_path / "agent")
    obs = {key: np.stack([value] * 2) for key, value in model.observation_space.sample().items()}
    tensors = {key: th.as_tensor(value) for key, value in obs.items()}
    for teacher in (load_teacher(model, device="cpu"), load_teacher(tmp_path / "agent.zip", device="cpu")):
        assert list(teacher.observation_space.spaces) == list(model.observation_space.spaces)
        assert th.allclose(preferences(teacher, tensors), reference_logits(model, obs), atol=1e-6)
        assert np.array_equal(teacher.predict(obs)[0], model.predict(obs, deterministic=True)[0])


def test_an_environment_that_cannot_be_made_is_not_needed(tmp_path):
    """Such as MuJoCo's, where MuJoCo is not installed."""

    def fail(**kwargs):
        raise gym.error.DependencyNotInstalled("nothing here")

    MODELS["ppo"]().save(tmp_path / "Missing-v0")
    gym.register("Missing-v0", entry_point=fail)
    try:
        teacher = load_teacher(tmp_path / "Missing-v0.zip")
    finally:
        del gym.registry["Missing-v0"]
    assert teacher.env_id == "Missing-v0" and teacher.observation_space.shape == (4,)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", np.zeros(3), np.zeros((0, 5))])
def test_a_damaged_record_of_scores_is_none(content, run_folder):
    path = run_folder / "evaluations.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.savez(path, results=content)
    with pytest.warns(UserWarning, match=r"evaluations.npz cannot be read .* recorded score is unknown"):
        assert load_teacher(run_folder).facts.recorded_score is None


class ReLU(th.nn.ReLU):
    """Not torch's, though it has its name."""


def test_an_activation_of_a_known_name_is_not_taken_for_it(tmp_path):
    PPO("MlpPolicy", "CartPole-v1", policy_kwargs={"activation_fn": ReLU}, **SMALL).save(tmp_path / "agent")
    with pytest.raises(AgentError, match=r"activation function .*ReLU.* is not known"):
        load_teacher(tmp_path / "agent.zip")


def test_normalisation_of_the_teacher_is_that_of_vecnormalize(tmp_path):
    env = VecNormalize(make_vec_env("CartPole-v1", 2), clip_obs=1.5)
    model = PPO("MlpPolicy", env, n_steps=64, **SMALL).learn(128)
    run = tmp_path / "ppo" / "CartPole-v1_1"
    (run / "CartPole-v1").mkdir(parents=True)
    model.save(run / "CartPole-v1")
    env.save(str(run / "CartPole-v1" / "vecnormalize.pkl"))
    (run / "CartPole-v1" / "config.yml").write_text("normalize: true\n")
    raw = sample(env.observation_space) * 3
    expected, _ = model.predict(env.normalize_obs(raw), deterministic=True)
    reference = reference_logits(model, env.normalize_obs(raw))
    for teacher in (load_teacher(run), load_teacher(model)):
        assert th.allclose(preferences(teacher, th.as_tensor(raw)), reference, atol=1e-5)
        assert np.array_equal(teacher.predict(raw)[0], expected)
    (run / "CartPole-v1" / "vecnormalize.pkl").unlink()
    with pytest.raises(AgentError, match=r"vecnormalize.pkl is\s+missing"):
        load_teacher(run)


def test_statistics_beside_a_zip_are_used(tmp_path):
    env = VecNormalize(make_vec_env("CartPole-v1", 1))
    env.obs_rms.mean[:] = 5.0
    model = PPO("MlpPolicy", env, **SMALL)
    model.save(tmp_path / "agent")
    env.save(str(tmp_path / "vec_normalize.pkl"))
    raw = sample(env.observation_space)
    logits = preferences(load_teacher(tmp_path / "agent.zip"), th.as_tensor(raw))
    assert th.allclose(logits, reference_logits(model, env.normalize_obs(raw)), atol=1e-5)


def test_statistics_of_another_agent_are_refused(tmp_path):
    VecNormalize(make_vec_env("Pendulum-v1", 1)).save(str(tmp_path / "vecnormalize.pkl"))
    MODELS["ppo"]().save(tmp_path / "agent")
    with pytest.raises(AgentError, match=r"of shape \(3,\), its observations of shape \(4,\)"):
        load_teacher(tmp_path / "agent.zip")


@pytest.mark.parametrize(("config", "frame_stack"), [("frame_stack: 2", 2), ("policy: CnnPolicy", 1), (None, 4)])
def test_the_configuration_knows_the_frame_stack(config, frame_stack, tmp_path):
    MODELS["dqn-cnn"]().save(tmp_path / "agent")
    if config is not None:
        (tmp_path / "config.yml").write_text(config)
    assert load_teacher(tmp_path / "agent.zip").frame_stack == frame_stack


def test_a_student_can_teach(tmp_path):
    student = PolicyDistillation(
        "MlpPolicy", "CartPole-v1", teacher=MODELS["dqn"](), n_teacher_episodes=0, learning_starts=8, **SMALL
    ).learn(64)
    student.save(tmp_path / "student")
    obs = sample(student.observation_space)
    for teacher in (load_teacher(tmp_path / "student.zip"), load_teacher(student)):
        assert teacher.algo == "pd" and isinstance(teacher, ValueTeacher)
        assert np.array_equal(teacher.predict(obs)[0], student.predict(obs, deterministic=True)[0])


@pytest.mark.parametrize("standardize", ["scalar", "frame", None])
@pytest.mark.parametrize("policy", ["MaxPoolCnnPolicy", "Net5Policy"])
def test_image_students_are_read_without_unpickling(policy, standardize, tmp_path):
    env = DummyVecEnv([lambda: image_env(84)])
    student = PolicyDistillation(
        policy,
        env,
        teacher=DQN("CnnPolicy", env, buffer_size=10, **SMALL),
        policy_kwargs={"features_extractor_kwargs": {"standardize": standardize}},
        n_teacher_episodes=0,
        learning_starts=8,
        **SMALL,
    ).learn(16)
    student.save(tmp_path / "student")
    teacher = load_teacher(tmp_path / "student.zip")
    student.policy.set_training_mode(False)
    obs = th.as_tensor(sample(student.observation_space))
    assert th.allclose(preferences(teacher, obs), preferences(student.policy, obs), atol=1e-5)
    assert teacher.n_parameters == student.policy.n_parameters


@pytest.mark.skipif(not ZOO_RUNS, reason="no trained agents at hand: set RL_TRAINED_AGENTS")
@pytest.mark.parametrize("run", ZOO_RUNS, ids=lambda run: f"{run.parent.name}-{run.name}")
def test_zoo_agents_match_an_ordinary_rebuild(run):
    """The same weights in a model that SB3 itself builds on the environment."""
    algo, env_id = run.parent.name, run.name.rsplit("_", 1)[0]
    classes = {"dqn": DQN, "qrdqn": QRDQN, "ppo": PPO, "a2c": A2C, "trpo": TRPO}
    if algo not in classes:
        pytest.skip(f"agents of {algo} are rebuilt in test_continuous_teachers.py")
    if env_id == "HalfCheetah-v3":
        pytest.importorskip("mujoco")
    teacher = load_teacher(run, device="cpu")
    assert (teacher.algo, teacher.env_id) == (algo, env_id)
    config = read_yaml(run / env_id / "config.yml")
    if "NoFrameskip" in env_id:
        env = DummyVecEnv([lambda: image_env(84)])
        env.action_space = spaces.Discrete(teacher.n_actions)
    else:
        today = {"LunarLander-v2": "LunarLander-v3", "Continuous-v2": "Continuous-v3", "Cheetah-v3": "Cheetah-v5"}
        env = make_vec_env(next((env_id.replace(old, new) for old, new in today.items() if old in env_id), env_id))
    kwargs = {} if algo in ("ppo", "a2c", "trpo") else {"buffer_size": 10}
    with zipfile.ZipFile(next(run.glob("*.zip"))) as archive:
        weights = th.load(io.BytesIO(archive.read("policy.pth")), map_location="cpu", weights_only=True)
    policy_kwargs = {"net_arch": [256, 256]} if algo in ("dqn", "qrdqn") and "Pong" not in env_id else {}
    if env_id == "HalfCheetah-v3":
        policy_kwargs = {"net_arch": [256, 256], "activation_fn": th.nn.ReLU}
    if algo == "qrdqn":
        policy_kwargs["n_quantiles"] = 10
    if "log_std" in weights and weights["log_std"].ndim == 2:
        kwargs["use_sde"] = True
    model = classes[algo](config["policy"], env, policy_kwargs=policy_kwargs, **kwargs, **SMALL)
    model.policy.load_state_dict(weights)
    model.policy.set_training_mode(False)

    raw = sample(teacher.observation_space, 64)
    seen = raw
    statistics = run / env_id / "vecnormalize.pkl"
    if statistics.is_file():
        normalizer = VecNormalize(env)
        found = read_normalization(statistics)
        normalizer.obs_rms.mean, normalizer.obs_rms.var = found.mean, found.var
        seen = normalizer.normalize_obs(raw)
    assert np.allclose(teacher.predict(raw)[0], model.predict(seen, deterministic=True)[0], rtol=0, atol=1e-6)
    if teacher.n_actions:
        assert th.allclose(preferences(teacher, th.as_tensor(raw)), reference_logits(model, seen), rtol=1e-4, atol=1e-4)


@pytest.fixture
def run_folder(tmp_path):
    """A small agent in the Zoo's layout."""
    run = tmp_path / "agents" / "dqn" / "CartPole-v1_1"
    (run / "CartPole-v1").mkdir(parents=True)
    MODELS["dqn"]().save(run / "CartPole-v1")
    (run / "CartPole-v1" / "config.yml").write_text("policy: MlpPolicy\npolicy_kwargs: dict(net_arch=[16, 8])\n")
    (run / "CartPole-v1" / "args.yml").write_text("algo: dqn\nenv: CartPole-v1\n")
    return run


def test_where_teachers_are_found(run_folder, monkeypatch):
    expected = load_teacher(run_folder / "CartPole-v1.zip").sha256
    monkeypatch.setenv("RL_TRAINED_AGENTS", str(run_folder.parents[1]))
    assert load_teacher(run_folder).sha256 == expected
    assert load_teacher("zoo:dqn/CartPole-v1").sha256 == expected
    assert load_teacher(str(run_folder / "CartPole-v1")).env_id == "CartPole-v1"
    other = run_folder.parent / "CartPole-v1_12"
    (other / "CartPole-v1").mkdir(parents=True)
    MODELS["dqn-elu"]().save(other / "CartPole-v1")
    # Twelve comes after two, and the latest run with an agent in it counts.
    (run_folder.parent / "CartPole-v1_2").mkdir()
    (run_folder.parent / "CartPole-v1_13").mkdir()
    assert load_teacher("zoo:dqn/CartPole-v1").sha256 == load_teacher(other).sha256
    # The Zoo writes ids with a slash otherwise.
    run_folder.rename(run_folder.with_name("ALE-Pong-v5_1"))
    assert load_teacher("zoo:dqn/ALE/Pong-v5").sha256 == expected


def test_a_run_folder_from_inside(run_folder, monkeypatch):
    monkeypatch.chdir(run_folder)
    assert load_teacher(".").env_id == "CartPole-v1"
    assert load_teacher("CartPole-v1").algo == "dqn"


def test_which_of_several_agents_is_taken(run_folder):
    MODELS["dqn-elu"]().save(run_folder / "best_model")
    MODELS["dqn-elu"]().save(run_folder / "rl_model_8_steps")
    with warnings.catch_warnings():
        # A run as the Zoo leaves it
        warnings.simplefilter("error")
        teacher = load_teacher(run_folder)
    assert teacher.sha256 == load_teacher(run_folder / "CartPole-v1.zip").sha256
    (run_folder / "rl_model_8_steps.zip").rename(run_folder / "mine.zip")
    with pytest.warns(UserWarning, match=r"CartPole-v1.zip is taken, not mine.zip\."):
        load_teacher(run_folder)
    (run_folder / "mine.zip").unlink()
    (run_folder / "CartPole-v1.zip").rename(run_folder / "rl_model_8_steps.zip")
    with pytest.warns(UserWarning, match=r"best_model.zip is taken, not rl_model_8_steps.zip"):
        load_teacher(run_folder)
    (run_folder / "best_model.zip").rename(run_folder / "rl_model_9_steps.zip")
    with pytest.raises(AgentError, match=r"name one of rl_model_8_steps.zip, rl_model_9_steps.zip"):
        load_teacher(run_folder)


def test_the_teacher_of_an_environment_is_found_by_itself(run_folder, monkeypatch):
    monkeypatch.setenv("RL_TRAINED_AGENTS", str(run_folder.parents[1]))
    model = PolicyDistillation("MlpPolicy", "CartPole-v1", **SMALL)
    assert model.teacher.sha256 == load_teacher(run_folder).sha256


def test_an_agent_of_an_earlier_version_is_found_and_named(run_folder, monkeypatch):
    monkeypatch.setenv("RL_TRAINED_AGENTS", str(run_folder.parents[1]))
    gym.register("CartPole-v9", entry_point="gymnasium.envs.classic_control:CartPoleEnv")
    try:
        with pytest.warns(UserWarning, match=r"trained on CartPole-v1, an earlier version of CartPole-v9"):
            assert PolicyDistillation("MlpPolicy", "CartPole-v9", **SMALL).teacher.env_id == "CartPole-v1"
    finally:
        del gym.registry["CartPole-v9"]


def test_missing_files_are_named_as_they_were_given(run_folder, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"no agent at nowhere/agent.zip"):
        load_teacher("nowhere/agent.zip")
    with pytest.raises(AgentError, match=r"Did you mean .*CartPole-v1.zip"):
        load_teacher(run_folder / "CartPole-v2.zip")
    for name in ("zoo:CartPole-v1", "hub:sb3", "hub:sb3/"):
        with pytest.raises(AgentError, match="does not name"):
            load_teacher(name)
    for name in (None, 5):
        with pytest.raises(AgentError, match=f"A teacher is an SB3 model, a path, .* not {name}"):
            load_teacher(name)
