import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import TRPO
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack, VecNormalize
from torch.distributions import kl_divergence

from sb3_distill import QPD, load_teacher
from sb3_distill.agents.files import AgentError
from sb3_distill.common.losses import kl_loss
from sb3_distill.quantization.layers import quantizers
from tests.helpers import same
from tests.qpd.students import BITS, SMALL_STUDENTS, make

pytestmark = SMALL_STUDENTS


class PartsOfPendulum(gym.ObservationWrapper):
    """Pendulum with Dict observations."""

    def __init__(self) -> None:
        super().__init__(gym.make("Pendulum-v1"))
        self.observation_space = spaces.Dict(
            {"angle": spaces.Box(-1, 1, (2,), np.float32), "speed": spaces.Box(-8, 8, (1,), np.float32)}
        )

    def observation(self, observation):
        return {"angle": observation[:2], "speed": observation[2:]}


# --- Losses


def test_the_loss_has_its_three_terms(ppo_teacher, gaussian_teacher):
    model = make(ppo_teacher, temperature=0.5, value_coef=0.3, ent_coef=0.1).learn(200)
    samples = model.replay_buffer.sample(16)
    answers, label = model.policy.answer(samples.observations), samples.answers
    probabilities = answers.log_probs.exp()
    assert th.allclose(probabilities.sum(1), th.ones(16))
    expected = (
        kl_loss(label.log_probs, answers.log_probs, 0.5, 1.0)
        + 0.3 * (answers.values - label.values).square()
        + 0.1 * (probabilities * answers.log_probs).sum(1)
    )
    losses, _ = model.student_loss(model.student, samples)
    assert losses.tolist() == pytest.approx(expected.tolist(), rel=1e-5)

    model = make(gaussian_teacher, env="Pendulum-v1", value_coef=0.0).learn(200)
    samples = model.replay_buffer.sample(16)
    distribution = model.policy.get_distribution(samples.observations).distribution
    theirs = gaussian_teacher.policy.get_distribution(samples.observations).distribution
    expected = kl_divergence(theirs, distribution).sum(1)
    losses, _ = model.student_loss(model.student, samples)
    assert losses.tolist() == pytest.approx(expected.tolist(), rel=1e-4)


def test_labels_are_the_teachers(ppo_teacher):
    model = make(ppo_teacher).learn(200)
    samples = model.replay_buffer.sample(32)
    with th.no_grad():
        expected = ppo_teacher.policy.get_distribution(samples.observations).distribution.logits
        values = ppo_teacher.policy.predict_values(samples.observations)
    assert th.allclose(samples.answers.log_probs, expected, atol=1e-5)
    assert th.allclose(samples.answers.values, values.squeeze(1), atol=1e-5)


def test_terms_of_the_loss_are_logged(ppo_teacher, gaussian_teacher):
    for teacher, env, comparison in (
        (ppo_teacher, "CartPole-v1", "agreement"),
        (gaussian_teacher, "Pendulum-v1", "action_distance"),
    ):
        model = make(teacher, env=env, value_coef=0.3, ent_coef=0.1)
        logged = {}

        def note(local, _, model=model, logged=logged):
            logged.update({key: value for key, value in model.logger.name_to_value.items() if key.startswith("train/")})
            return True

        model.set_logger(Logger(None, []))
        model.learn(200, callback=note)
        terms = {name: logged[f"train/{name}"] for name in ("actor_loss", "value_loss", "entropy")}
        assert logged["train/distill_loss"] == pytest.approx(terms["actor_loss"] + 0.3 * terms["value_loss"], rel=1e-5)
        assert logged["train/loss"] == pytest.approx(logged["train/distill_loss"] - 0.1 * terms["entropy"], rel=1e-5)
        assert f"train/{comparison}" in logged


# --- SB3's idioms


@pytest.mark.parametrize(
    ("bits", "rollout_policy"), [({}, "linear"), (BITS, "teacher"), (BITS, "student"), (BITS, "linear")]
)
def test_same_seed_same_bits(ppo_teacher, bits, rollout_policy):
    models = [make(ppo_teacher, rollout_policy=rollout_policy, **bits).learn(400) for _ in range(2)]
    assert models[0]._n_updates > 0 and same(models[0].policy, models[1].policy)


def test_same_seed_same_bits_with_a_gaussian(gaussian_teacher):
    models = [make(gaussian_teacher, env="Pendulum-v1", **BITS).learn(400) for _ in range(2)]
    assert models[0]._n_updates > 0 and same(models[0].policy, models[1].policy)


def test_a_function_says_who_acts(ppo_teacher):
    asked = []
    model = make(ppo_teacher, rollout_policy=lambda progress: asked.append(progress) or 0.5).learn(200)
    assert model._n_updates > 0 and asked[0] > asked[-1]


def test_trpo_teachers():
    trpo = TRPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, seed=0, device="cpu")
    model = make(trpo, **BITS).learn(200)
    assert model._n_updates > 0 and load_teacher(trpo).algo == "trpo"


@pytest.mark.parametrize("vec_env_cls", [DummyVecEnv, SubprocVecEnv])
def test_several_environments_behind_vec_normalize(ppo_teacher, vec_env_cls):
    processes = {"vec_env_kwargs": {"start_method": "fork"}} if vec_env_cls is SubprocVecEnv else {}
    env = VecNormalize(make_vec_env("CartPole-v1", 2, vec_env_cls=vec_env_cls, **processes))
    model = make(ppo_teacher, env=env, **BITS).learn(300)
    samples = model.replay_buffer.sample(32)
    with th.no_grad():
        # The teacher saw raw observations, and so are those that the memory holds.
        expected = ppo_teacher.policy.get_distribution(samples.observations).distribution.logits
    assert model._n_updates > 0 and th.allclose(samples.answers.log_probs, expected, atol=1e-5)
    env.close()


def test_dict_observations():
    env = DummyVecEnv([PartsOfPendulum])
    ppo = PPO("MultiInputPolicy", env, n_steps=8, batch_size=8, device="cpu")
    model = make(ppo, env=env, policy="MultiInputPolicy", **BITS).learn(200)
    assert model._n_updates > 0 and all(float(quantizer.blend) == 1.0 for quantizer in quantizers(model.policy))


def test_teachers_with_state_dependent_exploration():
    ppo = PPO("MlpPolicy", "Pendulum-v1", use_sde=True, n_steps=8, batch_size=8, device="cpu")
    model = make(ppo, env="Pendulum-v1").learn(200)
    samples = model.replay_buffer.sample(16)
    expected = ppo.policy.get_distribution(samples.observations).distribution
    assert th.allclose(samples.answers.gaussian.mean, expected.mean, atol=1e-5)
    assert th.allclose(samples.answers.gaussian.std, expected.stddev, atol=1e-5)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_save_load_predict_resume(env_id, ppo_teacher, gaussian_teacher, tmp_path: Path):
    source = ppo_teacher if env_id == "CartPole-v1" else gaussian_teacher
    model = make(source, env=env_id, **BITS).learn(400)
    model.save(tmp_path / "model")
    loaded = QPD.load(tmp_path / "model", device="cpu")
    obs = np.random.default_rng(0).normal(size=(50, *model.observation_space.shape)).astype(np.float32)
    assert np.array_equal(loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])
    assert same(loaded.policy, model.policy) and loaded.stored_bytes() == model.stored_bytes()
    resumed = QPD.load(tmp_path / "model", env=make_vec_env(env_id), teacher=source, device="cpu")
    resumed.learn(200, reset_num_timesteps=False)
    assert resumed._n_updates > model._n_updates


@pytest.mark.parametrize("bits", [{}, BITS], ids=["full", "quantized"])
@pytest.mark.parametrize("share", [True, False], ids=["shared", "separate"])
def test_students_are_read_without_unpickling(bits, share, ppo_teacher, tmp_path: Path):
    kwargs = {"net_arch": {"pi": [8, 6], "vf": [5]}, "share_features_extractor": share}
    model = make(ppo_teacher, policy_kwargs=kwargs, **bits).learn(400)
    model.save(tmp_path / "student")
    student = load_teacher(tmp_path / "student.zip", device="cpu")
    obs = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    assert student.algo == "qpd" and student.n_bytes == model.stored_bytes()
    # The actor's weights and biases, without step sizes: 4 x 8, 8 x 6, 6 x 2
    assert student.n_parameters == model.policy.n_parameters == 4 * 8 + 8 + 8 * 6 + 6 + 6 * 2 + 2
    assert np.array_equal(student.predict(obs)[0], model.predict(obs, deterministic=True)[0])


@pytest.mark.parametrize("share", [True, False], ids=["shared", "separate"])
def test_image_students_are_read_without_unpickling(share, tmp_path: Path):
    env = VecFrameStack(DummyVecEnv([lambda: FakeImageEnv(n_channels=1, discrete=True)]), 4)
    ppo = PPO("CnnPolicy", env, n_steps=8, batch_size=8, device="cpu")
    kwargs = {"policy_kwargs": {"share_features_extractor": share}, "learning_starts": 16, "buffer_size": 99}
    model = make(ppo, env=env, policy="Net5Policy", weight_bits=4, **kwargs)
    model.learn(40).save(tmp_path / "student")
    student = load_teacher(tmp_path / "student.zip", device="cpu")
    obs = np.random.default_rng(0).integers(0, 255, size=(8, 4, 84, 84), dtype=np.uint8)
    assert np.array_equal(student.predict(obs)[0], model.predict(obs, deterministic=True)[0])
    assert student.n_bytes == model.stored_bytes()


@pytest.mark.parametrize("bits", [{}, BITS], ids=["full", "quantized"])
@pytest.mark.parametrize("share", [True, False], ids=["shared", "separate"])
def test_policies_are_saved_and_loaded_alone(bits, share, ppo_teacher, tmp_path: Path):
    model = make(ppo_teacher, policy_kwargs={"net_arch": [8], "share_features_extractor": share}, **bits).learn(300)
    model.save(tmp_path / "student")
    obs = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    for policy in (model.policy, load_teacher(tmp_path / "student.zip", device="cpu").policy):
        policy.save(tmp_path / "policy")
        loaded = policy.load(tmp_path / "policy", device="cpu")
        assert same(loaded, policy) and loaded.share_features_extractor == share
        assert np.array_equal(loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])


def test_shared_and_separate_trunks(ppo_teacher):
    for share in (True, False):
        model = make(ppo_teacher, policy_kwargs={"net_arch": [8], "share_features_extractor": share}).learn(200)
        assert model._n_updates > 0


# --- Bad input


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"weight_bits": 1}, "weight_bits must be a whole number between 2 and 8 bits, not 1"),
        ({"weight_bits": 9}, "weight_bits must be a whole number between 2 and 8"),
        ({"weight_bits": 4.0}, "weight_bits must be a whole number between 2 and 8"),
        ({"weight_bits": 4, "activation_bits": 0}, "activation_bits must be a whole number"),
        ({"weight_bits": {"conv": 4, "lstm": 4}}, "weight_bits: Unknown entry 'lstm': choose one of conv, linear"),
        ({"first_layer_bits": 16}, "first_layer_bits must be a whole number"),
        ({"last_layer_bits": None}, "last_layer_bits must be a whole number"),
        ({"last_layer_bits": {"weight": 4}}, "last_layer_bits=.* must name the bits of both, weight and input"),
        ({"first_layer_bits": {"weight": 4, "inputs": 8}}, "first_layer_bits: Unknown entry 'inputs'"),
        ({"first_layer_bits": {"weight": 4, "input": 9}}, r"first_layer_bits\['input'\] must be a whole number"),
        ({"quantization_schedule": "steps"}, "Unknown quantization_schedule 'steps': choose one of blend, bits"),
        ({"full_precision_fraction": 0.8, "final_fraction": 0.3}, "schedule never reaches the final precision"),
        ({"final_fraction": 0.0}, "schedule never reaches the final precision"),
        ({"value_coef": -1.0}, "value_coef is a coefficient"),
        ({"value_coef": "small"}, "value_coef is a coefficient and must be at least 0, not 'small'"),
        ({"final_fraction": None}, "schedule never reaches the final precision.*final_fraction=None must be shares"),
        ({"teacher_eps": "few"}, r"teacher_eps is a probability and must lie in \[0, 1\], not 'few'"),
        ({"temperature": 0.0}, "temperature must be a positive finite number"),
        ({"weight_bits": None, "activation_bits": 4}, "activation_bits=4 needs weight_bits too"),
        ({"weight_bits": 4, "compile_update": True}, "compile_update=True does not go with weight_bits=4"),
        ({"loss": "mse"}, "unexpected keyword argument 'loss'"),
        ({"student_temperature": 0.1}, "unexpected keyword argument 'student_temperature'"),
        ({"student_eps": 0.1}, "unexpected keyword argument 'student_eps'"),
        ({"bf16": True}, "unexpected keyword argument 'bf16'"),
        ({"policy_kwargs": {"use_sde": True}}, "use_sde=True is not supported, students have a Gaussian"),
        ({"policy_kwargs": {"squash_output": True}}, r"squash_output=True needs continuous actions with bounds"),
        ({"policy": "Net1Polcy"}, r"Unknown policy 'Net1Polcy'.*Did you mean 'Net1Policy'"),
    ],
)
def test_bad_input_is_refused_at_construction(ppo_teacher, kwargs, message):
    with pytest.raises(TypeError if "unexpected" in message else ValueError, match=message):
        make(ppo_teacher, **kwargs)


def test_teachers_that_do_not_fit_are_refused(ppo_teacher, gaussian_teacher):
    cases = [
        (ppo_teacher, "Acrobot-v1", "chooses among 2 actions"),
        (gaussian_teacher, "MountainCarContinuous-v0", "differ in their observations"),
        (ppo_teacher, "Pendulum-v1", "has the action space"),
    ]
    for source, env, message in cases:
        with pytest.raises(ValueError, match=message):
            make(source, env=env)


def test_the_temperature_is_a_number_and_is_described(ppo_teacher, gaussian_teacher, capsys):
    for kwargs in ({"temperature": "auto"}, {"students": {"a": {"temperature": "auto"}}, "rollout_policy": "teacher"}):
        with pytest.raises(ValueError, match=r"temperature='auto' is not possible here.*distributions over actions"):
            make(ppo_teacher, **kwargs)
    said = make(ppo_teacher, verbose=1, temperature=0.5).learn(200)
    assert capsys.readouterr().out.count("Temperature 0.5 gives the best action") == 1
    assert same(said.policy, make(ppo_teacher, temperature=0.5).learn(200).policy)
    make(gaussian_teacher, env="Pendulum-v1", verbose=1).learn(200)
    assert "best action" not in capsys.readouterr().out


def test_agents_of_other_algorithms_are_hinted_at(tmp_path: Path, monkeypatch):
    for name in ("dqn/CartPole-v1_1", "dqn/CartPole-v2_1", "ppo/CartPole-v2_1"):
        (tmp_path / "rl-trained-agents" / name).mkdir(parents=True)
        (tmp_path / "rl-trained-agents" / name / f"{name[4:-2]}.zip").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RL_TRAINED_AGENTS", raising=False)
    with pytest.raises(AgentError) as caught:
        make(None)
    assert "zoo:ppo/CartPole-v2, of later versions with" in str(caught.value)
    assert "zoo:dqn/CartPole-v1, " in str(caught.value) and "with a temperature, or take --algo pd" in str(caught.value)


# --- The Zoo


def test_zoo_trains_enjoys_and_goes_on(ppo_teacher, zoo, tmp_path: Path):
    ppo_teacher.save(tmp_path / "teacher")
    params = ["-params", "teacher:'teacher.zip'", "learning_starts:100", "n_teacher_episodes:2"]
    arguments = ["--algo", "qpd", "--env", "CartPole-v1", "-f", "logs"]
    train = [*arguments, "-n", "800", "--eval-freq", "400"]
    zoo(tmp_path, "train", *train, *params)
    zoo(tmp_path, "enjoy", *arguments, "-n", 30, "--no-render")
    run = tmp_path / "logs/qpd/CartPole-v1_1"
    with warnings.catch_warnings():
        # Nor of the best model beside the last one
        warnings.simplefilter("error")
        assert (run / "best_model.zip").is_file() and load_teacher(run, device="cpu").n_bytes == 124
    zoo(tmp_path, "train", *train, "-i", run / "CartPole-v1.zip", *params)
    resumed = QPD.load(tmp_path / "logs/qpd/CartPole-v1_2/CartPole-v1.zip")
    assert isinstance(resumed.action_space, spaces.Discrete)
    assert resumed.transition_share == 1.0 and resumed.stored_bytes() == 124
