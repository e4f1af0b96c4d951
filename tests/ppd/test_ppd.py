"""Proximal policy distillation as an SB3 algorithm."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import DQN, PPO, SAC, TD3
from stable_baselines3.common.callbacks import ConvertCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

from sb3_distill import ProximalPolicyDistillation, StackedEntries, load_teacher
from sb3_distill.agents.files import AgentError
from sb3_distill.quantization.layers import quantizers
from sb3_distill.study.file import known_hyperparams
from tests.helpers import same
from tests.ppd.students import KWARGS, make

BITS = {"weight_bits": 3, "activation_bits": 4, "first_layer_bits": 5, "last_layer_bits": 6}
pytestmark = pytest.mark.filterwarnings("ignore:The actor has no layer between")
SQUASHED = {"policy_kwargs": {"net_arch": [8], "squash_output": True}}


def teacher_of(cls, env="Pendulum-v1", **kwargs):
    return cls("MlpPolicy", env, policy_kwargs={"net_arch": [8]}, seed=0, device="cpu", **kwargs)


# --- SB3's idioms


@pytest.mark.parametrize(("env_id", "bits"), [("CartPole-v1", {}), ("Pendulum-v1", BITS)], ids=["full", "quantized"])
def test_same_seed_same_bits(env_id, bits, ppo_teacher, gaussian_teacher):
    teacher = ppo_teacher if env_id == "CartPole-v1" else gaussian_teacher
    models = [make(teacher, env_id, **bits).learn(260) for _ in range(2)]
    assert models[0]._n_updates > 0 and same(models[0].policy, models[1].policy)


def test_what_is_logged(ppo_teacher, gaussian_teacher, tmp_path: Path):
    for teacher, env_id, compared in (
        (ppo_teacher, "CartPole-v1", "agreement"),
        (gaussian_teacher, "Pendulum-v1", "action_distance"),
    ):
        logged = {}
        model = make(teacher, env_id, n_teacher_episodes=1, distill_coef="lin_2.0", n_steps=16)
        model.set_logger(Logger(None, []))
        write = model.logger.dump
        model.logger.dump = lambda step=0, m=model, w=write, seen=logged: (seen.update(m.logger.name_to_value), w(step))
        model.learn(128)
        names = {"loss", "distill_loss", "learning_rate", "n_updates", "policy_gradient_loss", "value_loss", compared}
        assert {"teacher/mean_reward", *(f"train/{name}" for name in names)} <= set(logged)
        # No episode of Pendulum was over.
        assert ("rollout/percent_of_teacher" in logged) == (env_id == "CartPole-v1")
        # The last row but one update of the run: three quarters of it lay behind, as of the learning rate's schedule.
        assert logged["train/distill_coef"] == pytest.approx(0.5)
    model = make(ppo_teacher, tensorboard_log=str(tmp_path)).learn(64)
    assert list(tmp_path.rglob("PPD_1/events.*"))


def test_the_coefficient_is_a_schedule(ppo_teacher):
    for setting, expected in (
        (2, 2.0),
        ("0.5", 0.5),
        ("lin_3", 1.5),
        (lambda progress: 4 * progress**2, 1.0),
        (0, 0.0),
    ):
        assert make(ppo_teacher, distill_coef=setting)._distill_schedule(0.5) == pytest.approx(expected)


@pytest.mark.parametrize(("env_id", "bits"), [("CartPole-v1", BITS), ("Pendulum-v1", {})], ids=["quantized", "full"])
def test_save_load_and_go_on(env_id, bits, ppo_teacher, gaussian_teacher, tmp_path: Path):
    source = ppo_teacher if env_id == "CartPole-v1" else gaussian_teacher
    source.save(tmp_path / f"{env_id}.zip")
    model = make(str(tmp_path / f"{env_id}.zip"), env_id, distill_coef="lin_1.0", **bits).learn(260)
    model.save(tmp_path / "student")
    loaded = ProximalPolicyDistillation.load(tmp_path / "student", device="cpu")
    obs = np.random.default_rng(0).normal(size=(50, *model.observation_space.shape)).astype(np.float32)
    assert np.array_equal(loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])
    assert same(loaded.policy, model.policy) and loaded.stored_bytes() == model.stored_bytes()
    with pytest.raises(ValueError, match="no environment to learn in"):
        loaded.learn(64)
    # The teacher is found where it was.
    loaded.set_env(make_vec_env(env_id, 2))
    loaded.learn(64, reset_num_timesteps=False)
    assert loaded._n_updates > model._n_updates and loaded._teacher.sha256 == model.teacher_sha256


def test_a_student_does_not_become_a_ppo(ppo_teacher, tmp_path: Path):
    model = make(ppo_teacher).learn(64)
    path = tmp_path / "logs" / "ppo" / "CartPole-v1_1" / "CartPole-v1.zip"
    path.parent.mkdir(parents=True)
    model.save(path)
    # Whatever the folder is called, and from memory
    for source in (path, model):
        assert load_teacher(source, device="cpu").algo == "ppd"
    assert load_teacher(path, device="cpu").facts.teacher_sha256 == model.teacher_sha256
    # Its teacher was in memory: it does not go on without it, as PPO would.
    loaded = ProximalPolicyDistillation.load(path, env=make_vec_env("CartPole-v1", 2), device="cpu")
    with pytest.raises(ValueError, match="teacher was a model in memory, not a file: pass teacher="):
        loaded.learn(64)


def test_parameters_are_taken_and_given(ppo_teacher):
    model, other = make(ppo_teacher, **BITS).learn(260), make(ppo_teacher, **BITS)
    other.set_parameters(model.get_parameters())
    assert same(other.policy, model.policy) and other.transition_share == 1.0
    with pytest.raises(ValueError, match="make it with the same bits"):
        make(ppo_teacher, **{**BITS, "weight_bits": 8, "first_layer_bits": 8}).set_parameters(model.get_parameters())


def test_callbacks_and_the_progress_bar(ppo_teacher):
    calls = []
    model = make(ppo_teacher)
    model.learn(64, callback=[lambda local, _: calls.append(0) or True], progress_bar=True, log_interval=None)
    assert len(calls) == 32
    model.learn(64, callback=lambda local, _: False)
    assert model.num_timesteps == 2


def test_to_sb3(gaussian_teacher, tmp_path: Path):
    model = make(gaussian_teacher, "Pendulum-v1").learn(64)
    model.to_sb3().save(tmp_path / "stock")
    obs = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    stock = PPO.load(tmp_path / "stock", env=make_vec_env("Pendulum-v1"), device="cpu")
    expected = model.predict(obs, deterministic=True)[0]
    assert type(stock) is PPO and stock.predict(obs, deterministic=True)[0] == pytest.approx(expected, abs=1e-6)
    # Stock agents are teachers: a student that was trained on with RL is distilled again.
    assert make(stock, "Pendulum-v1").learn(64)._n_updates > 0


# --- What teacher and student see


@pytest.mark.parametrize("vec_env_cls", [DummyVecEnv, SubprocVecEnv])
def test_teachers_see_what_was_before_vec_normalize(vec_env_cls, ppo_teacher):
    processes = {"vec_env_kwargs": {"start_method": "fork"}} if vec_env_cls is SubprocVecEnv else {}
    env = VecNormalize(make_vec_env("CartPole-v1", 2, vec_env_cls=vec_env_cls, **processes), training=False)
    # Statistics that do not change, so that they can be undone
    env.obs_rms.mean, env.obs_rms.var = np.full(4, 0.5), np.full(4, 4.0)
    model = make(ppo_teacher, env=env).learn(64)
    raw = env.unnormalize_obs(model.rollout_buffer.observations)
    with th.no_grad():
        expected = ppo_teacher.policy.get_distribution(th.tensor(raw, dtype=th.float32)).distribution.logits
    assert th.allclose(model.rollout_buffer.answers.log_probs, expected, atol=1e-5)
    env.close()


class Parts(gym.ObservationWrapper):
    """Pendulum with Dict observations."""

    def __init__(self) -> None:
        super().__init__(gym.make("Pendulum-v1"))
        self.observation_space = spaces.Dict({"angle": spaces.Box(-1, 1, (2,)), "speed": spaces.Box(-8, 8, (1,))})

    def observation(self, observation):
        return {"angle": observation[:2], "speed": observation[2:]}


def test_dict_observations():
    env = make_vec_env(Parts, 2, seed=0)
    ppo = PPO("MultiInputPolicy", env, n_steps=8, batch_size=8, device="cpu")
    model = make(ppo, env=env, policy="MultiInputPolicy", **BITS).learn(260)
    assert model.transition_share == 1.0 and model._n_updates > 0


def test_images_are_standardised_by_the_first_rollout():
    env = DummyVecEnv([lambda: FakeImageEnv(screen_height=36, screen_width=36, n_channels=1, discrete=True)])
    ppo = PPO("CnnPolicy", env, n_steps=8, batch_size=8, device="cpu")
    model = make(ppo, env=env, policy="Net5Policy", n_steps=8, batch_size=8, policy_kwargs={})
    before = [parameter.clone() for parameter in model.policy.parameters()]
    model.learn(8)
    assert model._n_updates == 0 and not model.policy.needs_frame_statistics
    assert all(map(th.equal, before, model.policy.parameters()))
    scaler = model.policy.features_extractor.scaler
    assert float(scaler.mean) == pytest.approx(model.rollout_buffer.observations.mean(), rel=1e-4)
    assert model.learn(8, reset_num_timesteps=False)._n_updates > 0


# --- Teachers


def test_teachers_with_q_values():
    dqn = teacher_of(DQN, "CartPole-v1", buffer_size=10)
    model = make(dqn, temperature=0.1).learn(64)
    expected = dqn.q_net(th.tensor(model.rollout_buffer.observations))
    assert th.allclose(model.rollout_buffer.answers.q_values, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("cls", "kwargs", "message"),
    [
        (TD3, {}, r"\(td3\) answers with an action and no distribution.*--algo qpd"),
        (SAC, {}, r"\(sac\) squashes its actions, but the student does not.*squash_output=True.*net_arch"),
        (PPO, SQUASHED, r"\(ppo\) does not squash .*, but the student does:.*squash_output=False"),
    ],
)
def test_teachers_without_a_divergence_are_refused(cls, kwargs, message):
    with pytest.raises(ValueError, match=message):
        make(teacher_of(cls), "Pendulum-v1", **kwargs)


def test_a_teacher_of_one_key_is_sent_to_algorithms_that_show_it(gaussian_teacher):
    env = make_vec_env("Pendulum-v1", 1, wrapper_class=StackedEntries, wrapper_kwargs={"entries": [0, 1]})
    with pytest.raises(ValueError, match=r"positions, state\. Here the teacher sees all of them; pd, qpd and mtpd"):
        ProximalPolicyDistillation("MultiInputPolicy", env, gaussian_teacher, device="cpu")


def test_teachers_of_other_actions_are_refused(ppo_teacher):
    with pytest.raises(ValueError, match="choose a teacher with actions of the same kind"):
        make(ppo_teacher, "Pendulum-v1")
    with pytest.raises(ValueError, match="differ in their observations"):
        make(PPO("MlpPolicy", "Acrobot-v1", n_steps=8, batch_size=8, device="cpu"), "MountainCar-v0")
    with pytest.raises((ValueError, AgentError), match="nowhere"):
        make("nowhere.zip")


# --- Bad input


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"distill_coef": -1}, "distill_coef must be a number of at least 0, a schedule, or 'lin_VALUE'.*not -1"),
        ({"distill_coef": "falling"}, "distill_coef must be a number.*not 'falling'"),
        ({"distill_coef": float("nan")}, "distill_coef must be a number"),
        ({"distill_coef": lambda _: -1}, r"distill_coef must return a number of at least 0, not -1.*progress of 0"),
        ({"distill_coef": lambda _: None}, "distill_coef must return a number of at least 0, not None"),
        ({"n_teacher_episodes": -1}, "n_teacher_episodes must be a whole number, at least 0.*not -1"),
        ({"n_teacher_episodes": "many"}, "n_teacher_episodes must be a whole number, at least 0.*not 'many'"),
        ({"n_teacher_episodes": "3"}, "n_teacher_episodes must be a whole number.*not '3'"),
        ({"temperature": 0}, "temperature must be a positive finite number"),
        ({"temperature": "auto"}, "temperature='auto' is not possible here.*Pass a number"),
        ({"policy_kwargs": {"use_sde": True}}, "use_sde=True is not supported"),
        ({"policy_kwargs": {"squash_output": True}}, "squash_output=True needs continuous actions"),
        ({"rollout_buffer_class": dict}, "rollout_buffer_class cannot be chosen"),
        ({"weight_bits": 9}, "weight_bits must be a whole number between 2 and 8"),
        ({"policy": "Net6Policy"}, "Unknown policy 'Net6Policy'.*Net5Policy"),
    ],
)
def test_bad_arguments(kwargs, message, ppo_teacher):
    with pytest.raises(ValueError, match=message):
        make(ppo_teacher, **kwargs).learn(64)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("distil_coef", "Unknown argument of ProximalPolicyDistillation 'distil_coef'.*Did you mean 'distill_coef'"),
        ("students", "Unknown argument of ProximalPolicyDistillation 'students': choose one of "),
    ],
)
def test_unknown_arguments(name, message, ppo_teacher):
    with pytest.raises(TypeError, match=message):
        make(ppo_teacher, **{name: 1})


def test_what_is_refused_is_no_choice(ppo_teacher):
    with pytest.raises(TypeError) as raised:
        make(ppo_teacher, students=1)
    choices = str(raised.value).partition("choose one of ")[2].rstrip(".").split(", ")
    assert "ent_coef" in choices and not {"use_sde", "rollout_buffer_class"} & set(choices)
    assert not {"use_sde", "rollout_buffer_class"} & set(known_hyperparams("ppd"))


def test_q_values_need_a_temperature(cartpole_teacher):
    with pytest.raises(ValueError, match=r"answers with Q-values.*pass one, such as temperature="):
        make(cartpole_teacher)


def test_exploration_by_state(gaussian_teacher):
    with pytest.raises(ValueError, match="use_sde=True is not supported"):
        make(gaussian_teacher, "Pendulum-v1", use_sde=True)
    with pytest.raises(ValueError, match="use_sde=True is not supported"):
        make(gaussian_teacher, "CartPole-v1", use_sde=True)


def test_actions_without_a_loss():
    class Several(gym.Env):
        observation_space, action_space = spaces.Box(-1, 1, (2,)), spaces.MultiDiscrete([2, 3])

    with pytest.raises(ValueError, match=r"needs Discrete or Box actions, .*MultiDiscrete"):
        make("zoo:ppo/CartPole-v1", env=DummyVecEnv([Several]))


def test_losses_that_are_no_numbers(ppo_teacher):
    model = make(ppo_teacher, vf_coef=float("inf"), batch_size=64, n_epochs=1)
    with pytest.raises(ValueError, match=r"The loss became .* lower learning_rate"):
        model.learn(64)


# --- Few bits


@pytest.mark.parametrize("schedule", ["bits", "blend"])
def test_precision_falls_between_rollouts(schedule, ppo_teacher):
    seen = []

    def note(local, _):
        seen.append([(quantizer.blend, quantizer.bits) for quantizer in quantizers(local["self"].policy)])
        return True

    model = make(ppo_teacher, quantization_schedule=schedule, n_steps=16, **BITS).learn(320, callback=note)
    # Within a rollout and its updates there is one network, of which the ratio of PPO is.
    assert all(entry == seen[16 * (index // 16)] for index, entry in enumerate(seen))
    assert {blend for blend, _ in seen[0]} == {0.0} and len({tuple(entry) for entry in seen}) > 2
    assert seen[-1] == [(1.0, 5), (1.0, 5), (1.0, 6), (1.0, 6)]
    assert model.transition_share == 1.0 and not any(each.step.requires_grad for each in quantizers(model.policy))
    assert model.stored_bytes() < make(ppo_teacher).stored_bytes()


def test_best_model_has_the_final_precision(ppo_teacher, tmp_path: Path):
    evaluation = EvalCallback(make_vec_env("CartPole-v1"), eval_freq=16, best_model_save_path=str(tmp_path), verbose=0)

    def claim_more_than_can_be_reached(local, _):
        if local["self"].num_timesteps == 64:
            evaluation.best_mean_reward = 1e6
        return True

    model = make(ppo_teacher, **BITS).learn(640, callback=[evaluation, ConvertCallback(claim_more_than_can_be_reached)])
    assert 0 < evaluation.best_mean_reward <= 500 and model.transition_share == 1.0
    best = ProximalPolicyDistillation.load(tmp_path / "best_model", device="cpu")
    assert [int(quantizer.bits) for quantizer in quantizers(best.policy)] == [5, 5, 6, 6]


def test_runs_that_end_before_the_final_precision(ppo_teacher):
    with pytest.raises(
        ValueError, match=r"total_timesteps=128 makes 2 rollouts of n_steps \* n_envs = 64 steps, too few"
    ):
        make(ppo_teacher, **BITS).learn(128)
    assert make(ppo_teacher, full_precision_fraction=0.0, final_fraction=1.0, **BITS).learn(128).transition_share == 1.0


def test_a_student_of_full_precision_is_quantized_later(ppo_teacher, tmp_path: Path):
    make(ppo_teacher).learn(64).save(tmp_path / "full")
    env = make_vec_env("CartPole-v1", 2)
    model = ProximalPolicyDistillation.load(tmp_path / "full", env, teacher=ppo_teacher, device="cpu", **BITS)
    assert model.learn(260).transition_share == 1.0
    model.save(tmp_path / "few")
    with pytest.raises(ValueError, match=r"quantized already.*weight_bits cannot change"):
        ProximalPolicyDistillation.load(tmp_path / "few", env, device="cpu", weight_bits=8)


def test_without_a_teacher_named_the_zoo_is_searched(tmp_path: Path, monkeypatch, ppo_teacher):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RL_TRAINED_AGENTS", raising=False)
    ppo_teacher.save(tmp_path / "rl-trained-agents" / "ppo" / "CartPole-v1_1" / "CartPole-v1.zip")
    assert make(None, **KWARGS)._teacher.algo == "ppo"
