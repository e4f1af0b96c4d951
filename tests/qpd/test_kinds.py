"""Students of teachers whose actions are continuous, by the pair of kinds of their answers."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
import yaml
from gymnasium import spaces
from sb3_contrib import ARS, QRDQN, TQC, CrossQ
from stable_baselines3 import DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch.distributions import kl_divergence

from sb3_distill import QPD, PolicyDistillation, load_teacher
from sb3_distill.cli import main
from sb3_distill.common.files import default_config
from tests.agents.test_continuous_teachers import Arm, random_weights
from tests.agents.test_continuous_teachers import make as make_teacher
from tests.helpers import same
from tests.qpd.students import BITS, SMALL_STUDENTS, make

pytestmark = SMALL_STUDENTS
SQUASHED = {"policy_kwargs": {"net_arch": {"pi": [8], "vf": [8]}, "squash_output": True}}


def student_of(teacher, **kwargs):
    return make(teacher, env=DummyVecEnv([Arm]), **kwargs)


@pytest.mark.parametrize(
    ("algorithm", "squash"),
    [*((algorithm, {}) for algorithm in (SAC, TD3, DDPG, ARS)), *((each, SQUASHED) for each in (TQC, CrossQ, TD3))],
)
@pytest.mark.filterwarnings("ignore:The teacher ARS model has no critic")
def test_students_learn_from_all_of_them(algorithm, squash):
    teacher = make_teacher(algorithm)
    random_weights(teacher.policy)
    model = student_of(teacher, learning_rate=5e-3, **squash, **BITS)
    logged = []
    model.set_logger(Logger(None, []))
    model.learn(400, callback=lambda local, _: logged.append(dict(model.logger.name_to_value)) or True)
    distances = [each["train/action_distance"] for each in logged if "train/action_distance" in each]
    assert np.mean(distances[-20:]) < 0.9 * np.mean(distances[:5])
    assert model.transition_share == 1.0 and ("train/value_loss" in logged[-2]) == (algorithm is not ARS)


def test_squashed_gaussians_meet_before_the_squashing():
    """And points and means that are clipped meet as actions."""
    sac, td3 = make_teacher(SAC), make_teacher(TD3)
    for teacher in (sac, td3):
        random_weights(teacher.policy)
    model = student_of(sac, value_coef=0.0, **SQUASHED).learn(200)
    samples = model.replay_buffer.sample(16)
    own = model.policy.get_distribution(samples.observations).distribution
    mean, log_std, _ = sac.policy.actor.get_action_dist_params(samples.observations)
    expected = kl_divergence(th.distributions.Normal(mean, log_std.exp()), own).sum(1)
    assert model.student_loss(model.student, samples)[0].tolist() == pytest.approx(expected.tolist(), rel=1e-3)

    for teacher, squash in ((sac, {}), (td3, {}), (td3, SQUASHED)):
        model = student_of(teacher, value_coef=0.0, **squash).learn(200)
        samples = model.replay_buffer.sample(16)
        scaled = [
            th.as_tensor(
                teacher.policy.scale_action(policy.predict(samples.observations.numpy(), deterministic=True)[0])
            )
            for policy in (model.policy, teacher.policy)
        ]
        expected = th.nn.functional.huber_loss(*scaled, reduction="none").sum(1)
        losses, metrics = model.student_loss(model.student, samples)
        assert losses.tolist() == pytest.approx(expected.tolist(), rel=1e-3, abs=1e-5)
        distance = (scaled[0] - scaled[1]).abs().mean().item()
        assert metrics["action_distance"].item() == pytest.approx(distance, rel=1e-3)


def test_a_clipped_mean_comes_back_from_beyond_its_bounds():
    td3 = make_teacher(TD3)
    model = student_of(td3, learning_rate=0.02)
    with th.no_grad():
        model.policy.action_net.bias.fill_(9.0)
    model.learn(800)
    obs = model.replay_buffer.sample(64).observations.numpy()
    scaled = [td3.policy.scale_action(each.predict(obs, deterministic=True)[0]) for each in (model, td3)]
    assert np.abs(scaled[0] - scaled[1]).mean() < 0.3


def test_who_draws_actions():
    """A deviation that nobody teaches does not play."""
    sac, td3 = make_teacher(SAC), make_teacher(TD3)
    obs = np.random.default_rng(0).normal(size=(4, 5))
    for teacher, squash, draws in ((sac, SQUASHED, True), (sac, {}, False), (td3, SQUASHED, False), (td3, {}, False)):
        model = student_of(teacher, **squash)
        acted = [model._policy_actions(obs, np.random.default_rng(seed)) for seed in range(2)]
        assert np.array_equal(*acted) != draws
        greedy = model.predict(obs, deterministic=True)[0]
        assert draws or np.allclose(acted[0], greedy, atol=1e-6)
        assert [rule.sampled for rule in model._rollout_rules()] == [draws, teacher is sac]


def test_a_squashed_student_survives_its_file(tmp_path: Path):
    sac = make_teacher(SAC)
    random_weights(sac.policy)
    model = student_of(sac, **SQUASHED, **BITS).learn(300)
    model.save(tmp_path / "student")
    obs = np.random.default_rng(0).normal(size=(50, 5))
    expected = model.predict(obs, deterministic=True)[0]
    loaded = QPD.load(tmp_path / "student", device="cpu")
    assert same(loaded.policy, model.policy) and np.array_equal(loaded.predict(obs, deterministic=True)[0], expected)
    student = load_teacher(tmp_path / "student.zip", device="cpu")
    assert np.array_equal(student.predict(obs)[0], expected)
    answers, _ = student.answer(th.as_tensor(obs))
    assert answers.gaussian is not None and answers.gaussian.squashed
    model.policy.save(tmp_path / "policy")
    policy = model.policy.load(tmp_path / "policy")
    assert np.array_equal(policy.predict(obs, deterministic=True)[0], expected)


def test_same_seed_same_bits():
    sac = make_teacher(SAC)
    models = [student_of(sac, **SQUASHED, **BITS).learn(300) for _ in range(2)]
    assert models[0]._n_updates > 0 and same(models[0].policy, models[1].policy)


def test_the_critics_part_is_left_out_where_there_is_none():
    ars = make_teacher(ARS)
    with pytest.warns(UserWarning, match=r"has no critic, so the critic's part of the loss is left out"):
        model = student_of(ars).learn(200)
    assert model.replay_buffer.sample(4).answers.values is None
    headless = load_teacher(PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, device="cpu"))
    del headless.policy.value_net
    with pytest.warns(UserWarning, match="has no critic"):
        assert make(headless).learn(200)._n_updates > 0


def test_no_critic_is_asked_for_where_the_shipped_teacher_has_none():
    sections = yaml.safe_load(default_config("qpd").read_text())
    found = [
        each for each in sections.values() if each.get("teacher", "").startswith(("zoo:dqn", "zoo:qrdqn", "zoo:ars"))
    ]
    assert found and all(each["value_coef"] == 0 for each in found)


@pytest.mark.parametrize(("algo", "algorithm"), [("dqn", DQN), ("qrdqn", QRDQN), ("ars", ARS)])
@pytest.mark.filterwarnings("ignore:The teacher .* has no critic")
def test_q_values_are_a_distribution_at_a_temperature(algo, algorithm):
    teacher = algorithm("MlpPolicy", "CartPole-v1", seed=3, device="cpu")
    random_weights(teacher.policy)
    with pytest.raises(
        ValueError, match=rf"\({algo}\) answers with Q-values, which become a distribution.*temperature="
    ):
        make(teacher)
    model = make(teacher, temperature=0.3, learning_rate=1e-2, batch_size=64).learn(400)
    samples = model.replay_buffer.sample(16)
    student = model.policy.answer(samples.observations)
    losses, metrics = model.student_loss(model.student, samples)
    expected = (samples.answers.q_values / 0.3).log_softmax(1)
    divergence = (expected.exp() * (expected - student.log_probs)).sum(1)
    assert losses.tolist() == pytest.approx(divergence.tolist(), rel=1e-3, abs=1e-6)
    assert "value_loss" not in metrics and metrics["agreement"] > 0.8
    # Both play as they say: the teacher greedily, the student by its distribution
    assert (model._teacher_rule().sampled, model._student_rule().sampled) == (False, True)


def test_pd_takes_discrete_ars_agents():
    ars = ARS("LinearPolicy", "CartPole-v1", seed=0, device="cpu")
    for parameter in ars.policy.parameters():
        parameter.data.normal_()
    kwargs = {"n_teacher_episodes": 0, "learning_starts": 64, "seed": 0, "device": "cpu"}
    model = PolicyDistillation("MlpPolicy", "CartPole-v1", ars, **kwargs, temperature="auto").learn(1_000)
    obs = model.replay_buffer.sample(64).observations
    expected = ars.policy.action_net(obs)
    assert th.allclose(load_teacher(ars).answer(obs)[0].q_values, expected, atol=1e-6)
    assert np.mean(model.predict(obs.numpy(), deterministic=True)[0] == expected.argmax(1).numpy()) > 0.8


def test_teachers_normalize_for_themselves():
    env = VecNormalize(DummyVecEnv([Arm]))
    env.obs_rms.mean[:], env.obs_rms.var[:] = 2.0, 9.0
    sac = make_teacher(SAC, env=env)
    random_weights(sac.policy)
    model = student_of(sac, **SQUASHED).learn(200)
    samples = model.replay_buffer.sample(16)
    normalized = th.as_tensor(env.normalize_obs(samples.observations.numpy()))
    with th.no_grad():
        mean, _, _ = sac.policy.actor.get_action_dist_params(normalized)
    assert th.allclose(samples.answers.gaussian.mean, mean, atol=1e-4)


@pytest.fixture
def arm_versions():
    for version in (3, 5):
        gym.register(f"Arm-v{version}", entry_point=Arm)
    yield
    for version in (3, 5):
        del gym.registry[f"Arm-v{version}"]


def write_run(root: Path, algorithm, env_id: str, score: float | None = None) -> Path:
    run = root / algorithm.__name__.lower() / f"{env_id}_1"
    (run / env_id).mkdir(parents=True)
    make_teacher(algorithm).save(run / env_id)
    (run / env_id / "args.yml").write_text(f"env: {env_id}\n")
    if score is not None:
        np.savez(run / "evaluations.npz", timesteps=[1], results=[[score, score]], ep_lengths=[[9, 9]])
    return run


@pytest.mark.usefixtures("arm_versions")
def test_the_zoos_command_finds_the_teacher_of_an_earlier_version(zoo, tmp_path: Path, monkeypatch):
    monkeypatch.delenv("RL_TRAINED_AGENTS", raising=False)
    agents = tmp_path / "rl-trained-agents"
    for algorithm, score in ((SAC, 1.0), (TD3, 3.0), (ARS, None)):
        write_run(agents, algorithm, "Arm-v3", score)
    arguments = ["--algo", "qpd", "--env", "Arm-v5", "-f", "logs", "--eval-freq", "-1", "-n", 300]
    params = ["-params", "learning_starts:100", "n_teacher_episodes:1", "policy_kwargs:dict(net_arch=[8])"]
    with pytest.warns(UserWarning, match=r"td3/Arm-v3_1 was trained on Arm-v3, an earlier version of Arm-v5"):
        zoo(tmp_path, "train", *arguments, *params)
    # Named, the rule is the same; of the later version for the earlier environment it is not.
    with pytest.warns(UserWarning, match="earlier version of Arm-v5"):
        zoo(tmp_path, "train", *arguments, *params, "teacher:'zoo:sac/Arm-v3'")
    run = tmp_path / "logs/qpd/Arm-v5_2"
    assert QPD.load(run / "Arm-v5.zip").taught_by == "zoo:sac/Arm-v3"
    assert main(["evaluate", str(run), "-n", "1"]) == 0
    assert main(["evaluate", str(run), "--teacher", "zoo:sac/Arm-v3", "-n", "1"]) == 0
    teacher = load_teacher(make_teacher(SAC), env_id="Arm-v5")
    with pytest.raises(ValueError, match=r"was trained on Arm-v5.*environment is Arm-v3.*allow_env_mismatch"):
        make(teacher, env="Arm-v3")


def test_the_order_of_algorithms():
    assert QPD.teacher_algorithms(Arm.action_space)[:3] == ("sac", "tqc", "crossq")
    assert "sac" not in QPD.teacher_algorithms(spaces.Discrete(2))
