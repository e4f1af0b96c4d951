import copy
import csv
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from conftest import run_python
from gymnasium import spaces
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack, VecNormalize
from torch.nn import functional as F

from sb3_distill import PolicyDistillation, RealTimeDistillDQN, load_teacher
from sb3_distill.agents.normalization import Normalization
from sb3_distill.buffers.replay import FrameReplayBuffer
from sb3_distill.common.losses import kl_loss
from sb3_distill.results.curves import summarize
from sb3_distill.rtpd.students import SharedBatch, Student, StudentSpec

DQN_KWARGS = {
    "learning_rate": 2e-3,
    "learning_starts": 100,
    "batch_size": 32,
    "buffer_size": 1_000,
    "target_update_interval": 20,
    "train_freq": 4,
    "gradient_steps": 2,
    "exploration_fraction": 0.5,
    "policy_kwargs": {"net_arch": [32]},
    "seed": 3,
    "device": "cpu",
}
SMALL = {"policy": "MlpPolicy", "policy_kwargs": {"net_arch": [8]}}
KWARGS = {"students": {"small": SMALL, "other": {**SMALL, "imitation": False}}, "temperature": 0.1, "eval_freq": -1}


def make(**kwargs) -> RealTimeDistillDQN:
    return RealTimeDistillDQN(
        kwargs.pop("policy", "MlpPolicy"), kwargs.pop("env", "CartPole-v1"), **{**DQN_KWARGS, **KWARGS, **kwargs}
    )


def same(first: th.nn.Module, second: th.nn.Module) -> bool:
    states = first.state_dict(), second.state_dict()
    return states[0].keys() == states[1].keys() and all(th.equal(states[0][key], states[1][key]) for key in states[0])


# --- The teacher is SB3's DQN


@pytest.mark.parametrize(
    "ours",
    [
        {"students": None},
        {},
        {"teacher_source": "best", "eval_freq": 50, "n_eval_episodes": 2},
    ],
    ids=["no students", "students", "students of the best"],
)
@pytest.mark.parametrize("dqn", [{}, {"n_steps": 3}], ids=["one step", "three steps"])
def test_the_teacher_is_bit_equal_to_sb3s_dqn(ours, dqn):
    reference = DQN("MlpPolicy", "CartPole-v1", **DQN_KWARGS, **dqn).learn(800)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = make(**ours, **dqn).learn(800)
    assert same(model.policy, reference.policy)
    assert model._n_updates == reference._n_updates > 0


def test_a_teacher_of_images_is_bit_equal_with_frames_stored_once():
    def venv():
        env = FakeImageEnv(n_channels=1, discrete=True)
        env.observation_space.seed(0)
        return VecFrameStack(DummyVecEnv([lambda: env]), 4)

    kwargs = {**DQN_KWARGS, "policy_kwargs": {"net_arch": [16]}, "buffer_size": 200}
    reference = DQN("CnnPolicy", venv(), **kwargs).learn(140)
    model = RealTimeDistillDQN("CnnPolicy", venv(), students=["Net5Policy"], eval_freq=-1, **kwargs).learn(140)
    assert type(reference.replay_buffer) is ReplayBuffer and type(model.replay_buffer) is FrameReplayBuffer
    assert same(model.policy, reference.policy)
    assert bool(model.player("net5").q_net.features_extractor.scaler.fitted)


# --- What students learn


def make_batch(imitation_differs: bool = False) -> SharedBatch:
    th.manual_seed(0)
    replay_data = ReplayBufferSamples(
        th.randn(6, 4),
        th.randint(2, (6, 1)),
        th.randn(6, 4),
        th.tensor([[0.0], [1.0], [0.0], [0.0], [1.0], [0.0]]),
        th.randn(6, 1),
    )
    return SharedBatch(replay_data, 0.9, th.randn(6, 2), th.randint(2, (6, 1)))


def make_student(**entries) -> Student:
    space = spaces.Box(-1, 1, (4,))
    spec = {
        "policy": "MlpPolicy",
        "policy_kwargs": {"net_arch": [8]},
        "learning_rate": 1e-3,
        "loss": "kl",
        "temperature": 0.5,
        "student_temperature": 0.5,
        "self_learning": 0.7,
        "imitation": True,
        "teacher_source": "latest",
    }
    return Student(StudentSpec(**{**spec, **entries}), space, spaces.Discrete(2), th.device("cpu"))


@pytest.mark.parametrize("imitation", [True, False])
def test_the_loss_is_that_of_the_paper(imitation):
    """Sun & Fazli 2019, Eq. 3 with the target of Eq. 5 or Eq. 4, computed row by row."""
    student, batch = make_student(imitation=imitation), make_batch()
    data = batch.replay_data
    q_values = student.policy.q_net(data.observations)
    next_q_values = student.q_net_target(data.next_observations)
    errors = []
    for row in range(6):
        action = int(batch.teacher_next_actions[row]) if imitation else int(next_q_values[row].argmax())
        target = data.rewards[row] + (1 - data.dones[row]) * 0.9 * next_q_values[row, action].detach()
        errors.append(F.smooth_l1_loss(q_values[row, data.actions[row]], target))
    expected = kl_loss(batch.teacher_q_values, q_values, 0.5, 0.5) + 0.7 * th.stack(errors).mean()
    losses = student.learn(batch, max_grad_norm=10)
    assert losses["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    agreement = (q_values.argmax(1) == batch.teacher_q_values.argmax(1)).float().mean()
    assert losses["agreement"].item() == agreement.item()


def test_without_self_learning_rewards_do_not_matter():
    batch = make_batch()
    other = SharedBatch(batch.replay_data._replace(rewards=th.zeros(6, 1)), 0.5, *list(vars(batch).values())[2:])
    results = []
    for data in (batch, other):
        th.manual_seed(1)
        student = make_student(self_learning=0.0)
        assert "td_loss" not in student.learn(data, 10)
        results.append(student)
    assert same(results[0], results[1])


def test_students_learn_independently_of_each_other():
    alone = make(students={"small": SMALL}).learn(300)
    together = make(students={"small": SMALL, "other": {**SMALL, "learning_rate": 0.1}}).learn(300)
    assert same(alone.student_nets["small"], together.student_nets["small"])


def test_same_seed_same_bits_and_targets_follow():
    models = [make().learn(300) for _ in range(2)]
    assert same(models[0].student_nets, models[1].student_nets)
    student = models[0].student_nets["small"]
    assert not same(student.q_net_target, student.policy.q_net)
    student.update_target(1.0)
    assert same(student.q_net_target, student.policy.q_net)


def test_entries_of_a_student_override_the_arguments():
    specs = {"a": SMALL, "b": {**SMALL, "temperature": 1.0, "loss": "reverse_kl", "self_learning": 0}}
    model = make(students=specs, temperature=0.1)
    assert model.student_nets["a"].distillation_loss.student_temperature == 0.1
    assert vars(model.student_nets["b"].distillation_loss) == {
        "name": "reverse_kl",
        "temperature": 1.0,
        "student_temperature": 1.0,
    }
    assert make(student_temperature=1.0).student_nets["small"].distillation_loss.student_temperature == 1.0


# --- Who teaches


def test_students_of_the_best_wait_for_it_and_follow_it():
    model = make(teacher_source="best", eval_freq=40, n_eval_episodes=2, verbose=0)
    before = copy.deepcopy(model.player("small"))
    model.learn(140)
    assert model._n_updates == 20 and not model.evaluations
    assert same(model.player("small"), before)
    model.learn(200, reset_num_timesteps=False)
    assert len(model.evaluations) > 3
    assert not same(model.best_q_net, model.q_net)
    assert not same(model.player("small"), before)


def test_students_of_the_latest_and_the_best_share_a_run():
    students = {"latest": SMALL, "best": {**SMALL, "teacher_source": "best"}}
    kwargs = {"eval_freq": 40, "n_eval_episodes": 2}
    model = make(students=students, **kwargs).learn(340)
    assert same(model.player("latest"), make(students={"latest": SMALL}, **kwargs).learn(340).player("latest"))
    assert not same(model.player("latest"), model.player("best"))


def test_warm_start_takes_the_weights(cartpole_teacher: Path):
    trained = DQN.load(cartpole_teacher)
    model = make(teacher=cartpole_teacher, policy_kwargs={"net_arch": [32]})
    assert same(model.q_net, trained.q_net) and same(model.q_net_target, trained.q_net)


@pytest.mark.parametrize(
    ("policy_kwargs", "message"), [({"net_arch": [16]}, "another network than policy and policy_kwargs say")]
)
def test_warm_start_needs_the_same_network(policy_kwargs, message, cartpole_teacher: Path):
    with pytest.raises(ValueError, match=message):
        make(teacher=cartpole_teacher, policy_kwargs=policy_kwargs)


def test_warm_start_is_from_a_dqn():
    ppo = PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, device="cpu")
    with pytest.raises(ValueError, match="is a ppo agent; real-time distillation goes on with a DQN"):
        make(teacher=ppo)


def test_warm_start_is_from_a_teacher_that_fits():
    trained = DQN("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [32]}, device="cpu")
    other = load_teacher(trained, env_id="CartPole-v0")
    with pytest.raises(ValueError, match=r"was trained on CartPole-v0.*allow_env_mismatch=True"):
        make(teacher=other)
    make(teacher=other, allow_env_mismatch=True)
    normalized = load_teacher(trained)
    normalized.normalization = Normalization(np.zeros(4), np.ones(4), 1e-8, 10.0)
    with pytest.raises(ValueError, match="trained behind VecNormalize"):
        make(teacher=normalized)


# --- Saving, resuming, acting


def test_save_load_and_resume(tmp_path: Path):
    straight = make().learn(400)
    first = make().learn(200)
    first.save(tmp_path / "model")
    first.save_replay_buffer(tmp_path / "replay")
    loaded = RealTimeDistillDQN.load(tmp_path / "model", env=make_vec_env("CartPole-v1"), device="cpu")
    assert same(loaded.policy, first.policy) and same(loaded.student_nets, first.student_nets)
    for name in first.students:
        states = [model.student_nets[name].optimizer.state_dict()["state"] for model in (first, loaded)]
        assert all(th.equal(states[0][key]["exp_avg"], states[1][key]["exp_avg"]) for key in states[0])
    loaded.load_replay_buffer(tmp_path / "replay")
    loaded.learn(200, reset_num_timesteps=False)
    assert loaded.num_timesteps == straight.num_timesteps and loaded._n_updates > first._n_updates
    assert not same(loaded.student_nets, first.student_nets)


def test_act_with_chooses_the_player(tmp_path: Path):
    model = make().learn(300)
    obs = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    model.save(tmp_path / "model")
    for name in ("teacher", *model.students):
        loaded = RealTimeDistillDQN.load(tmp_path / "model", act_with=name)
        expected = model.player(name).predict(obs, deterministic=True)[0]
        assert np.array_equal(loaded.predict(obs, deterministic=True)[0], expected)
        assert np.array_equal(loaded.predict(obs[0], deterministic=True)[0], expected[0])
    with pytest.raises(ValueError, match=r"Unknown act_with 'smal'.*teacher, small, other.*Did you mean 'small'"):
        RealTimeDistillDQN.load(tmp_path / "model", act_with="smal")


def test_act_with_a_student_does_not_change_who_collects():
    assert same(make(act_with="small").learn(300).policy, make().learn(300).policy)


def test_students_are_written_as_pd_zips(tmp_path: Path):
    model = make().learn(300)
    path = tmp_path / "small.zip"
    model.student_model("small").save(path)
    obs = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    expected = model.player("small").predict(obs, deterministic=True)[0]
    assert np.array_equal(PolicyDistillation.load(path).predict(obs, deterministic=True)[0], expected)
    teacher = load_teacher(path)
    assert teacher.algo == "pd" and np.array_equal(teacher.predict(obs)[0], expected)


def test_a_student_model_goes_on_as_a_student():
    """Out of one run, distilled further by another teacher, and into the next run."""
    student = make().learn(200).student_model("small")
    model = make(students={"again": student})
    assert same(model.player("again"), student.policy)


def test_writing_a_student_changes_nothing():
    straight = make().learn(200).learn(100, reset_num_timesteps=False)
    interrupted = make().learn(200)
    interrupted.student_model("small")
    interrupted.learn(100, reset_num_timesteps=False)
    assert same(straight.policy, interrupted.policy) and same(straight.student_nets, interrupted.student_nets)


# --- Evaluation


def test_evaluations_are_paired_logged_and_written(tmp_path: Path):
    model = make(eval_freq=40, n_eval_episodes=3, results_dir=str(tmp_path)).learn(400)
    players = ["teacher", "small", "other"]
    assert [entry["player"] for entry in model.evaluations[:3]] == players
    assert [entry["n_updates"] for entry in model.evaluations] == sorted(
        entry["n_updates"] for entry in model.evaluations
    )
    assert len(model.evaluations) == 3 * (model._n_updates // 40)
    with (tmp_path / "learning_curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["mean_reward"]) for row in rows] == [entry["mean_reward"] for entry in model.evaluations]
    assert (tmp_path / "learning_curves.png").read_bytes()[:4] == b"\x89PNG"
    student = load_teacher(tmp_path / "students/small/pd/CartPole-v1_1")
    assert student.algo == "pd" and student.env_id == "CartPole-v1"


def test_evaluations_use_the_runs_normalisation(tmp_path: Path):
    env = VecNormalize(make_vec_env("CartPole-v1", n_envs=2, monitor_dir=str(tmp_path)), norm_reward=False)
    model = make(env=env, eval_freq=40, n_eval_episodes=2).learn(300)
    assert model.evaluations and (tmp_path / "learning_curves.csv").is_file()
    student = load_teacher(tmp_path / "students/small/pd/CartPole-v1_1")
    assert np.array_equal(student.normalization.mean, env.obs_rms.mean)


def test_environments_in_other_processes(tmp_path: Path):
    env = make_vec_env("CartPole-v1", 2, vec_env_cls=SubprocVecEnv, monitor_dir=str(tmp_path))
    model = make(env=env, eval_freq=40, n_eval_episodes=2, results_dir=str(tmp_path / "results")).learn(300)
    env.close()
    assert model.evaluations and (tmp_path / "results" / "learning_curves.csv").is_file()


def test_students_are_written_without_evaluations_and_when_stopped(tmp_path: Path):
    make(eval_freq=-1, results_dir=str(tmp_path / "never")).learn(200)
    assert load_teacher(tmp_path / "never/students/small/pd/CartPole-v1_1").algo == "pd"
    assert not (tmp_path / "never" / "learning_curves.csv").exists()
    model = make(eval_freq=40, n_eval_episodes=1, results_dir=str(tmp_path / "stopped"))

    def stop(variables, _):
        if model.evaluations:
            raise KeyboardInterrupt
        return True

    with pytest.raises(KeyboardInterrupt):
        model.learn(400, callback=stop)
    assert (tmp_path / "stopped" / "learning_curves.png").is_file()
    assert load_teacher(tmp_path / "stopped/students/other/pd/CartPole-v1_1").algo == "pd"


def test_environments_that_hide_their_folder_are_said(tmp_path: Path):
    env = make_vec_env("CartPole-v1", 2, vec_env_cls=SubprocVecEnv, monitor_dir=str(tmp_path))
    with pytest.warns(UserWarning, match="only where results_dir= says"):
        make(env=env).learn(50)
    env.close()


def test_progress_bar_tells_of_updates():
    model = make(train_freq=100, gradient_steps=200)
    shown = []
    model.learn(300, progress_bar=True, callback=lambda *_: shown.append(model._progress_bar.pbar.desc) or True)
    assert "update 200 of 200" in shown


def test_open_entries_of_a_student_are_the_algorithms():
    entries = {"learning_rate": None, "self_learning": None, "imitation": None, "temperature": None}
    model = make(students={"a": {**SMALL, **entries}}, imitation=True, self_learning=0.5, student_temperature=0.3)
    _, student = next(model._each_student())
    assert student.spec.imitation is True and student.spec.self_learning == 0.5
    assert student.spec.temperature == 0.1 and student.spec.student_temperature == 0.3
    assert student.lr_schedule(1.0) == DQN_KWARGS["learning_rate"]


def test_summary_is_that_of_the_paper():
    curves = {"teacher": [1.0, 5.0, 4.0] + [2.0] * 8 + [4.0], "a": [0.0, 4.0, 8.0] + [1.0] * 9}
    evaluations = [
        {"player": name, "mean_reward": curves[name][point], "n_updates": point}
        for point in range(12)
        for name in curves
    ]
    teacher, student = summarize(evaluations)
    assert teacher["max"] == 5 and teacher["last"] == pytest.approx((4 + 2 * 8 + 4) / 10)
    assert student["max_percent"] == pytest.approx(160) and student["last"] == pytest.approx((8 + 9) / 10)
    assert student["last_percent"] == pytest.approx(100 * 1.7 / 2.4)
    assert student["last_std"] == pytest.approx(np.std([8.0] + [1.0] * 9))


# --- Bad input

IMAGE_STUDENT = {"policy": "Net1Policy"}


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"students": {}}, "students is empty: name at least one"),
        ({"students": "Net1Policy"}, "students maps names to policies"),
        ({"students": ["MlpPolicy", "MlpPolicy"]}, "names 'MlpPolicy' twice"),
        ({"students": {"teacher": SMALL}}, "'teacher' cannot be a name"),
        ({"students": {"a.b": SMALL}}, "'a.b' cannot be a name"),
        ({"students": {"keys": SMALL}}, "'keys' cannot be a name"),
        ({"students": {"a": "MlpPolcy"}}, r"students\['a'\]: Unknown policy 'MlpPolcy'.*Did you mean 'MlpPolicy'"),
        ({"students": {"a": {"policy": "MlpPolicy", "temprature": 1}}}, "Unknown entry 'temprature'.*'temperature'"),
        ({"students": {"a": {"temperature": 1.0}}}, "Unknown policy None"),
        ({"students": {"a": IMAGE_STUDENT}}, r"students\['a'\]: A CNN student needs channels-first images"),
        ({"students": {"a": {**SMALL, "temperature": 0.0}}}, r"students\['a'\]: temperature must be a positive"),
        (
            {"students": {"a": {**SMALL, "learning_rate": "cos_1"}}},
            r"students\['a'\]: learning_rate must be a positive number",
        ),
        ({"students": {"a": {**SMALL, "learning_rate": 0.0}}}, "learning_rate must be a positive number"),
        ({"temperature": -1.0}, "temperature must be a positive finite number"),
        ({"loss": "kll"}, "Unknown loss 'kll'.*Did you mean 'kl'"),
        ({"self_learning": -1.0}, "self_learning is a coefficient"),
        ({"self_learning": "1"}, "self_learning is a coefficient"),
        ({"self_learning": float("inf")}, "self_learning is a coefficient"),
        ({"students": [SMALL, SMALL]}, "needs a name of its own, in a dictionary"),
        ({"students": {"a": {**SMALL, "policy_kwargs": {"width": 3}}}}, r"students\['a'\]: .*'width'"),
        ({"students": None, "teacher_source": "bests"}, "Unknown teacher_source 'bests'"),
        ({"students": None, "temperature": 0.0}, "temperature must be a positive finite number"),
        ({"n_eval_episodes": -3}, "n_eval_episodes must be at least 0"),
        ({"teacher_source": "bests"}, "Unknown teacher_source 'bests'.*latest, best.*Did you mean 'best'"),
        ({"teacher_source": "best", "eval_freq": -1}, "eval_freq=-1 and n_eval_episodes=30 evaluate nothing"),
        ({"teacher_source": "best", "n_eval_episodes": 0}, "evaluate nothing"),
        ({"eval_eps": 1.5}, r"eval_eps is a probability and must lie in \[0, 1\]"),
        ({"act_with": "big"}, "Unknown act_with 'big'"),
        ({"policy": "Net1Policy"}, "Unknown policy 'Net1Policy': choose one of MlpPolicy, CnnPolicy"),
        ({"env": "Pendulum-v1"}, "Discrete"),
    ],
)
def test_bad_input_is_refused_at_construction(kwargs, message):
    with pytest.raises((ValueError, AssertionError), match=message):
        make(**{"eval_freq": 100, **kwargs})


def test_learning_rate_of_a_student_may_fall():
    model = make(students={"falling": {**SMALL, "learning_rate": "lin_1e-3"}, "steady": SMALL}).learn(400)
    falling, steady = (student.optimizer.param_groups[0]["lr"] for _, student in model._each_student())
    assert falling == pytest.approx(1e-3 * model._current_progress_remaining) and steady == 2e-3
    assert falling < 1e-4


def test_students_of_other_spaces_are_refused(cartpole_teacher: Path):
    student = PolicyDistillation("MlpPolicy", "CartPole-v1", teacher=cartpole_teacher)
    with pytest.raises(ValueError, match="student 'a' differ in their observations: the shape"):
        make(env="Acrobot-v1", students={"a": student})
    student.action_space = spaces.Discrete(3)
    with pytest.raises(ValueError, match=r"differ in their actions: Discrete\(2\) against Discrete\(3\)"):
        make(students={"a": student})


def test_evaluations_need_a_registered_environment():
    env = DummyVecEnv([lambda: FakeImageEnv(discrete=True)])
    with pytest.raises(ValueError, match=r"no registered id.*eval_freq=-1"):
        make(policy="CnnPolicy", env=env, students=["Net5Policy"], eval_freq=10, policy_kwargs={}).learn(10)


def test_wrappers_that_the_id_does_not_tell_are_refused():
    env = gym.wrappers.TimeAwareObservation(gym.make("CartPole-v1"))
    with pytest.raises(ValueError, match=r"differs from a fresh CartPole-v1.*eval_freq=-1"):
        make(env=env, eval_freq=10).learn(10)


def test_wrappers_that_evaluations_leave_out_are_named():
    env = gym.wrappers.TransformReward(gym.make("CartPole-v1"), lambda reward: 0.1 * reward)
    with pytest.warns(UserWarning, match="fresh CartPole-v1, without the training environment's TransformReward"):
        make(env=env, eval_freq=100).learn(10)


# --- The Zoo


def test_zoo_trains_resumes_and_enjoys_students(tmp_path: Path):
    arguments = ["-n", "1500", "--eval-freq", "-1", "--seed", "0", "-f", "logs", "-params", "eval_freq:250"]
    train = ["-m", "rl_zoo3.train", "--algo", "rtpd", "--env", "CartPole-v1", *arguments, "n_eval_episodes:2"]
    result = run_python(tmp_path, *train)
    run = tmp_path / "logs/rtpd/CartPole-v1_1"
    assert "mean of last" in result.stdout
    assert (run / "learning_curves.png").is_file()
    for name in ("large", "medium", "small"):
        folder = f"logs/rtpd/CartPole-v1_1/students/{name}"
        enjoy = ["-m", "rl_zoo3.enjoy", "--algo", "pd", "--env", "CartPole-v1", "-f", folder, "-n", "20", "--no-render"]
        run_python(tmp_path, *enjoy)
    enjoy = ["-m", "rl_zoo3.enjoy", "--algo", "rtpd", "--env", "CartPole-v1", "-f", "logs", "-n", "20", "--no-render"]
    run_python(tmp_path, *enjoy)
    run_python(tmp_path, *train, "-i", "logs/rtpd/CartPole-v1_1/CartPole-v1.zip")
    with (tmp_path / "logs/rtpd/CartPole-v1_2/learning_curves.csv").open() as file:
        updates = [int(row["n_updates"]) for row in csv.DictReader(file)]
    with (run / "learning_curves.csv").open() as file:
        assert updates[-1] > int(list(csv.DictReader(file))[-1]["n_updates"])


def test_an_agent_that_learns_alone_is_no_student(tmp_path: Path):
    kwargs = {"features_extractor_kwargs": {"channels": (8, 8, 8), "features_dim": 16, "pool": "max"}}
    env = VecFrameStack(make_atari_env("PongNoFrameskip-v4", 1), 4)
    with pytest.warns(UserWarning, match="There are no students"):
        model = RealTimeDistillDQN(
            "StudentCnnPolicy", env, buffer_size=50, learning_starts=8, policy_kwargs=kwargs, seed=0, device="cpu"
        ).learn(20)
    model.save(tmp_path / "model")
    agent = load_teacher(tmp_path / "model.zip", device="cpu")
    assert agent.algo == "dqn" and agent.teacher_source is None
    # 4x8x8x8 + 8, 8x8x4x4 + 8, 8x8x3x3 + 8, 8x16 + 16, 16x6 + 6
    assert agent.n_parameters == 2056 + 1032 + 584 + 144 + 102
    obs = np.random.default_rng(0).integers(0, 256, (5, 4, 84, 84)).astype(np.uint8)
    assert np.array_equal(agent.predict(obs)[0], model.predict(obs, deterministic=True)[0])
