"""Students as stock models of Stable-Baselines3."""

import zipfile
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from gymnasium.envs.registration import WrapperSpec
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize

from sb3_distill import QPD, load_teacher
from sb3_distill.agents.files import AgentError
from sb3_distill.agents.rebuild.stock import stock_model
from sb3_distill.base.students import student_model
from sb3_distill.cli import main
from tests.agents.test_continuous_teachers import Arm, observations, random_weights
from tests.agents.test_continuous_teachers import make as make_teacher
from tests.helpers import FRAMES
from tests.qpd.students import BITS, SMALL_STUDENTS, make

pytestmark = SMALL_STUDENTS


def q_student(policy: str, space: spaces.Space, **kwargs):
    model = student_model(policy, kwargs, space, spaces.Discrete(5), "cpu")
    random_weights(model.policy)
    return model


def test_a_student_of_pd_is_a_dqn(tmp_path: Path):
    student = q_student("MlpPolicy", spaces.Box(-1, 1, (4,)), net_arch=[7, 6], activation_fn=th.nn.ELU)
    stock = student.to_sb3()
    stock.save(tmp_path / "stock")
    with zipfile.ZipFile(tmp_path / "stock.zip") as archive:
        assert b"sb3_distill" not in archive.read("data")
    loaded = DQN.load(tmp_path / "stock", device="cpu")
    obs = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    assert np.array_equal(loaded.predict(obs, deterministic=True)[0], student.predict(obs, deterministic=True)[0])
    with th.no_grad():
        assert th.equal(loaded.q_net(th.as_tensor(obs)), student.policy.q_net(th.as_tensor(obs)))
        assert th.equal(loaded.q_net_target(th.as_tensor(obs)), loaded.q_net(th.as_tensor(obs)))


@pytest.mark.parametrize("policy", ["Net5Policy", "Net1Policy"])
def test_the_scaling_of_frames_is_in_the_first_layer(policy):
    student = q_student(policy, FRAMES)
    frames = np.random.default_rng(1).integers(0, 255, size=(20, *FRAMES.shape), dtype=np.uint8)
    student.policy.fit_frame_scalers(th.as_tensor(frames))
    stock = student.to_sb3()
    # On processors with bfloat16, training computes in it
    student.policy.set_training_mode(False)
    with th.no_grad():
        expected = student.policy.q_net(th.as_tensor(frames))
        found = stock.q_net(th.as_tensor(frames))
    assert th.allclose(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("policy", "kwargs", "problem"),
    [
        ("MaxPoolCnnPolicy", {}, "global max-pool"),
        ("Net5Policy", {"features_extractor_kwargs": {"standardize": "frame"}}, "mean frame"),
        ("CnnPolicy", {"features_extractor_kwargs": {"channels": (40, 8, 8)}}, r"\[40, 8, 8\] feature maps"),
    ],
)
def test_what_stock_policies_cannot_do_is_refused(policy, kwargs, problem):
    with pytest.raises(AgentError, match=f"cannot be a stock model, because .*{problem}"):
        q_student(policy, FRAMES, **kwargs).to_sb3()


@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize("bits", [{}, BITS], ids=["full", "quantized"])
def test_a_student_of_qpd_is_a_ppo(squash, bits, tmp_path: Path):
    sac = make_teacher(SAC)
    random_weights(sac.policy)
    kwargs = {"net_arch": {"pi": [8, 7], "vf": [6]}, "squash_output": squash}
    student = make(sac, env=DummyVecEnv([Arm]), policy_kwargs=kwargs, **bits).learn(300)
    student.to_sb3().save(tmp_path / "stock")
    stock = PPO.load(tmp_path / "stock", env=DummyVecEnv([Arm]), device="cpu", n_steps=16, batch_size=16)
    obs = observations(200)
    expected, found = (each.predict(obs, deterministic=True)[0] for each in (student, stock))
    # Inputs of layers are not rounded any more.
    assert np.allclose(found, expected, atol=0.3 if bits else 1e-5)
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99
    values = [each.policy.predict_values(each.policy.obs_to_tensor(obs)[0]) for each in (student, stock)]
    assert th.allclose(*values, atol=1e-5)
    # It is trained on, and can teach again.
    stock.learn(32)
    assert QPD("MlpPolicy", DummyVecEnv([Arm]), stock, n_teacher_episodes=0, learning_starts=16).learn(64)._n_updates


def test_only_finished_students_are_stock_models():
    with pytest.raises(AgentError, match=r"\(ppo\) is no student of pd, qpd or ppd"):
        stock_model(load_teacher(PPO("MlpPolicy", "CartPole-v1", device="cpu")))


def test_the_verb_writes_and_checks_it(ppo_teacher, tmp_path: Path, capsys):
    student = make(ppo_teacher, policy_kwargs={"net_arch": [8]}).learn(200)
    student.save(tmp_path / "student")
    command = ["export", str(tmp_path / "student.zip"), "--format", "sb3", "-o", str(tmp_path / "out")]
    assert main([*command, "--n-observations", "50"]) == 0
    assert "CartPole-v1.zip: 0.00% other actions" in capsys.readouterr().out
    obs = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    stock = PPO.load(tmp_path / "out" / "CartPole-v1.zip", device="cpu")
    assert np.array_equal(stock.predict(obs, deterministic=True)[0], student.predict(obs, deterministic=True)[0])


def test_a_student_of_several_keys(ppo_teacher, tmp_path: Path, capsys):
    gym.register(
        "Keyed-v0",
        gym.spec("CartPole-v1").entry_point,
        max_episode_steps=100,
        additional_wrappers=(
            WrapperSpec("StackedEntries", "sb3_distill.envs.wrappers.keys:StackedEntries", {"entries": [0]}),
        ),
    )
    try:
        env = make_vec_env("Keyed-v0", 2)
        kwargs = {"policy": "MultiInputPolicy", "teacher_keys": "state", "allow_env_mismatch": True}
        make(ppo_teacher, env=env, **kwargs).learn(200).save(tmp_path / "student")
        command = ["export", str(tmp_path / "student.zip"), "--format", "sb3", "-o", str(tmp_path / "out")]
        assert main([*command, "--n-observations", "50"]) == 0
    finally:
        del gym.registry["Keyed-v0"]
    assert "Keyed-v0.zip: 0.00% other actions" in capsys.readouterr().out
    stock, student = PPO.load(tmp_path / "out" / "Keyed-v0.zip", device="cpu"), QPD.load(tmp_path / "student")
    obs = env.reset()
    assert np.array_equal(stock.predict(obs, deterministic=True)[0], student.predict(obs, deterministic=True)[0])


def test_vec_normalize_is_no_part_of_it(ppo_teacher):
    env = VecNormalize(make_vec_env("CartPole-v1"))
    student = make(ppo_teacher, env=env).learn(100)
    with pytest.warns(UserWarning, match="trained behind VecNormalize, which is no part of a stock model"):
        stock = student.to_sb3()
    obs = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    assert np.array_equal(stock.predict(obs, deterministic=True)[0], student.predict(obs, deterministic=True)[0])


def test_frames_of_actor_critic_students():
    env = VecFrameStack(DummyVecEnv([lambda: FakeImageEnv(n_channels=1, discrete=True)]), 4)
    ppo = PPO("CnnPolicy", env, n_steps=8, batch_size=8, device="cpu")
    for share in (True, False):
        kwargs = {"policy_kwargs": {"share_features_extractor": share}, "learning_starts": 16, "buffer_size": 99}
        student = make(ppo, env=env, policy="Net5Policy", **kwargs).learn(24)
        student.policy.set_training_mode(False)
        frames = th.randint(0, 255, (8, 4, 84, 84), dtype=th.uint8)
        with th.no_grad():
            stock = student.to_sb3()
            expected = student.policy.answer(frames)
            assert th.allclose(stock.policy.get_distribution(frames).distribution.logits, expected.log_probs, atol=1e-3)
            assert th.allclose(stock.policy.predict_values(frames).squeeze(1), expected.values, atol=1e-3)
