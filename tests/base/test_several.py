"""Several students of one run, which share play, answers and minibatches."""

import csv
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import A2C, DQN
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecNormalize

from sb3_distill import QPD, PolicyDistillation, load_teacher
from sb3_distill.agents.config import read_yaml
from sb3_distill.agents.files import BEST_STATISTICS, RUN_STATE
from sb3_distill.cli import main
from sb3_distill.state.file import StateFileError
from tests.helpers import same
from tests.qpd.students import SMALL_STUDENTS

COMMON = {"n_teacher_episodes": 0, "learning_starts": 64, "seed": 5, "device": "cpu"}
PD_STUDENTS = {
    "small": {"policy": "MlpPolicy", "policy_kwargs": {"net_arch": [4]}, "loss": "mse"},
    "warm": {"temperature": "auto", "learning_rate": 3e-3},
}
QPD_STUDENTS = {"three": {"weight_bits": 3}, "eight": {"weight_bits": 8, "learning_rate": "lin_0.003"}}


def pd(students=None, n_envs=2, **kwargs) -> PolicyDistillation:
    teacher = DQN("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [16]}, seed=3, device="cpu", buffer_size=10)
    env = kwargs.pop("env", None) or make_vec_env("CartPole-v1", n_envs, seed=5, monitor_dir=kwargs.pop("folder", None))
    arguments = {"policy_kwargs": {"net_arch": [8]}, "temperature": 0.1, **COMMON, **kwargs}
    return PolicyDistillation("MlpPolicy", env, teacher, students=students, **arguments)


def qpd(students=None, env_id="CartPole-v1", n_envs=3, **kwargs) -> QPD:
    teacher = A2C("MlpPolicy", env_id, seed=3, device="cpu")
    env = make_vec_env(env_id, n_envs, seed=5, monitor_dir=kwargs.pop("folder", None))
    arguments = {"policy_kwargs": {"net_arch": {"pi": [8, 8], "vf": [8]}}, "weight_bits": None, **COMMON, **kwargs}
    return QPD("MlpPolicy", env, teacher, students=students, **arguments)


def weights(model):
    return {name: model.student_model(name).policy for name in model.students} | {"": model.policy}


def assert_same_students(first, second):
    assert weights(first).keys() == weights(second).keys()
    for name, policy in weights(first).items():
        assert same(policy, weights(second)[name]), name


@pytest.mark.parametrize(
    ("make", "students", "kwargs"),
    [(pd, PD_STUDENTS, {}), (qpd, QPD_STUDENTS, {"weight_bits": 4, "rollout_policy": "teacher"})],
)
def test_the_first_student_learns_as_it_does_alone(make, students, kwargs):
    alone, together = make(**kwargs).learn(400), make(students, **kwargs).learn(400)
    assert alone._n_updates == together._n_updates > 20
    assert same(alone.policy, together.policy)
    assert_same_students(together, make(students, **kwargs).learn(400))


def test_students_can_be_dropped_during_a_run():
    class Drop(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps == 200:
                self.model.drop_student("small")
            return True

    whole, dropped = pd(PD_STUDENTS).learn(400), pd(PD_STUDENTS).learn(400, Drop())
    assert list(dropped.students) == ["warm"]
    assert same(whole.policy, dropped.policy)
    assert same(whole.student_model("warm").policy, dropped.student_model("warm").policy)
    with pytest.raises(ValueError, match="Unknown student 'small': choose one of warm"):
        dropped.drop_student("small")


def test_a_sibling_learns_as_it_does_when_it_is_first():
    """From the same weights and the same minibatches."""
    model = pd({"twin": {}, "small": PD_STUDENTS["small"]})
    twin = model.student_model("twin")
    assert not same(twin.policy, model.policy)
    twin.policy.load_state_dict(model.policy.state_dict())
    model.learn(400)
    assert same(twin.policy, model.policy)
    alone = pd(loss="mse", policy_kwargs={"net_arch": [4]})
    alone.policy.load_state_dict(pd({"twin": {}, **PD_STUDENTS}).student_model("small").policy.state_dict())
    assert same(alone.learn(400).policy, model.student_model("small").policy)


def test_seeds_of_initial_weights_follow_each_other():
    alone = pd(seed=6)
    assert same(alone.policy, pd({"twin": {}}).student_model("twin").policy)


def test_one_memory_and_one_log(tmp_path: Path):
    model = pd(PD_STUDENTS)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(400, log_interval=1)
    for name in PD_STUDENTS:
        assert model.student_model(name).replay_buffer is model.replay_buffer
        assert model.student_model(name)._n_updates == model._n_updates
    with open(tmp_path / "progress.csv") as file:
        last = list(csv.DictReader(file))[-1]
    assert {"train/loss", "small/loss", "warm/loss", "warm/agreement", "small/learning_rate"} <= last.keys()
    assert model.student_model("small").temperature == 0.1
    assert isinstance(model.student_model("warm").temperature, float)


@SMALL_STUDENTS
@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_every_student_has_its_own_precision(env_id):
    model = qpd(QPD_STUDENTS, env_id=env_id, gradient_steps=1).learn(500)
    assert model.bits["weight_bits"] is None
    sizes = [model.student_model(name).stored_bytes() for name in QPD_STUDENTS]
    assert sizes[0] < sizes[1] < model.stored_bytes()
    assert [model.student_model(name).transition_share for name in QPD_STUDENTS] == [1.0, 1.0]


def test_students_act_in_their_own_environments():
    model = pd({"other": {}}, n_envs=5, rollout_policy="student", student_eps=0.0)
    for bias, policy in enumerate(weights(model).values()):
        with th.no_grad():
            for parameter in policy.q_net.parameters():
                parameter.zero_()
            list(policy.q_net.parameters())[-1][1 - bias] = 1.0
    model.learn(10)
    assert model.replay_buffer.size() > 0
    actions = model._student_actions(model._last_obs, None)
    assert actions.tolist() == [0, 1, 0, 1, 0]


@pytest.mark.parametrize(
    ("students", "kwargs", "message"),
    [
        ({}, {}, "students is empty"),
        ({"teacher": {}}, {}, "cannot be the name"),
        ({"small": {"buffer_size": 9}}, {}, r"students\['small'\]: buffer_size belongs to the run"),
        ({"small": {"los": "kl"}}, {}, r"students\['small'\].*Did you mean 'loss'"),
        ({"small": {"loss": "kll"}}, {}, r"students\['small'\].*kll"),
        ({"small": "Net9Policy"}, {}, r"students\['small'\].*Net9Policy"),
        (["MlpPolicy", "MlpPolicy"], {}, "twice"),
        (["MlpPolicy"], {"rollout_policy": "student", "n_envs": 1}, "2 students and n_envs=1"),
    ],
)
def test_mistakes_are_named(students, kwargs, message):
    with pytest.raises(ValueError, match=message):
        pd(students, **kwargs)


def test_every_student_needs_updates_for_its_precision():
    with pytest.raises(ValueError, match="learning_starts=64 leaves no update"):
        qpd({"three": {"weight_bits": 3}}).learn(60)


def test_mistakes_of_precision_name_the_student():
    with pytest.raises(ValueError, match=r"students\['one'\].*weight_bits"):
        qpd({"one": {"weight_bits": 1}})


@SMALL_STUDENTS
@pytest.mark.parametrize(("make", "students", "algo"), [(pd, PD_STUDENTS, "pd"), (qpd, QPD_STUDENTS, "qpd")])
def test_students_are_evaluated_and_saved(make, students, algo, tmp_path: Path):
    model = make(students, folder=str(tmp_path), n_teacher_episodes=2)
    model.set_logger(configure(str(tmp_path / "log"), ["csv"]))
    evaluate = EvalCallback(Monitor(gym.make("CartPole-v1")), eval_freq=100, n_eval_episodes=3, verbose=0)
    model.learn(600, evaluate)
    with open(tmp_path / "log" / "progress.csv") as file:
        rows = list(csv.DictReader(file))
    for name in students:
        folder = tmp_path / "students" / name / algo / "CartPole-v1_1"
        student = load_teacher(folder, device="cpu")
        obs = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
        expected, _ = model.student_model(name).policy.predict(obs, deterministic=True)
        assert (student.predict(obs)[0] == expected).all()
        evaluations = np.load(folder / "evaluations.npz")
        assert evaluations["results"].shape == (len(evaluations["timesteps"]), 3) == (6 // model.n_envs, 3)
        means = [float(row[f"eval/{name}_mean_reward"]) for row in rows if row[f"eval/{name}_mean_reward"]]
        assert means == pytest.approx(evaluations["results"].mean(axis=1).tolist(), rel=1e-4)
        assert any(row[f"eval/{name}_percent_of_teacher"] for row in rows)


class KeepStudents(BaseCallback):
    """Keeps the weights that a student has at every evaluation."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.kept: list[dict[str, th.Tensor]] = []

    def _on_step(self) -> bool:
        parameters = self.model.student_model(self.name).policy.state_dict()
        self.kept.append({key: value.clone() for key, value in parameters.items()})
        return True


@pytest.mark.parametrize("keeps", [True, False])
def test_every_student_has_its_best_model(keeps, tmp_path: Path):
    env = VecNormalize(make_vec_env("CartPole-v1", 2, seed=5, monitor_dir=str(tmp_path)), norm_reward=False)
    eval_env = VecNormalize(make_vec_env("CartPole-v1", 1), training=False, norm_reward=False)
    model = pd(PD_STUDENTS, env=env)
    keep = KeepStudents("small")
    evaluate = EvalCallback(
        eval_env,
        callback_after_eval=keep,
        eval_freq=60,
        n_eval_episodes=3,
        best_model_save_path=str(tmp_path / "best") if keeps else None,
        verbose=0,
    )
    model.learn(1_200, evaluate)
    folder = tmp_path / "students" / "small" / "pd" / "CartPole-v1_1"
    assert (folder / "best_model.zip").is_file() == keeps
    assert (folder / BEST_STATISTICS).is_file() == keeps
    if keeps:
        means = np.load(folder / "evaluations.npz")["results"].mean(axis=1)
        best = keep.kept[means.argmax()]
        assert 0 < means.argmax() < len(means) - 1
        agent = load_teacher(folder / "best_model.zip", device="cpu")
        assert all(th.equal(value, best[key]) for key, value in agent.policy.state_dict().items())
        mean = agent.normalization.mean
        assert not np.array_equal(mean, load_teacher(folder, device="cpu").normalization.mean)


@SMALL_STUDENTS
@pytest.mark.parametrize(("make", "students"), [(pd, PD_STUDENTS), (qpd, QPD_STUDENTS)])
def test_all_students_are_saved_and_loaded(make, students, tmp_path: Path):
    model = make(students).learn(600)
    model.save(tmp_path / "model")
    loaded = type(model).load(tmp_path / "model", device="cpu")
    assert_same_students(model, loaded)
    for name in students:
        for key in model.student_state:
            assert getattr(loaded.student_model(name), key) == getattr(model.student_model(name), key)
    # Agents are read without their siblings.
    assert same(model.policy.cpu(), load_teacher(tmp_path / "model.zip", device="cpu").policy)


def test_how_students_are_computed_is_passed_for_all(tmp_path: Path):
    pd(PD_STUDENTS, bf16=False, compile_update=False).save(tmp_path / "model")
    loaded = PolicyDistillation.load(tmp_path / "model", device="cpu", bf16=True, compile_update=None)
    loaded.save(tmp_path / "again")
    for model in (loaded, PolicyDistillation.load(tmp_path / "again", device="cpu")):
        for student in (model, *map(model.student_model, PD_STUDENTS)):
            assert (student.bf16, student.compile_update) == (True, None)


class StopAt(BaseCallback):
    """Stops a run after a number of steps."""

    def __init__(self, n_calls: int) -> None:
        super().__init__()
        self.stop = n_calls

    def _on_step(self) -> bool:
        return self.n_calls < self.stop


@SMALL_STUDENTS
@pytest.mark.parametrize(("make", "students"), [(pd, PD_STUDENTS), (qpd, QPD_STUDENTS)])
def test_a_run_that_goes_on_ends_with_the_same_bits(make, students, tmp_path: Path):
    def callbacks(folder: Path, stop: int):
        evaluate = EvalCallback(Monitor(gym.make("CartPole-v1")), eval_freq=80, n_eval_episodes=2, verbose=0)
        return [CheckpointCallback(50, str(folder)), evaluate, StopAt(stop)]

    kwargs = {"rollout_policy": "linear", "n_envs": 3}
    whole = make(students, **kwargs).learn(600, callbacks(tmp_path / "whole", 10_000))
    make(students, **kwargs).learn(600, callbacks(tmp_path / "parts", 120))
    resumed = make(students, **kwargs)
    resumed.load_run_state(tmp_path / "parts" / RUN_STATE)
    assert 0 < resumed.num_timesteps < 600
    resumed.learn(600 - resumed.num_timesteps, callbacks(tmp_path / "parts", 10_000))
    assert_same_students(whole, resumed)


def test_the_zoo_trains_several_students(tmp_path: Path, monkeypatch):
    agent = tmp_path / "teacher"
    DQN("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [16]}, device="cpu", buffer_size=10).save(agent)
    monkeypatch.setattr("sys.argv", sys.argv[:1])
    students = "students:{'small': {'policy': 'MlpPolicy', 'policy_kwargs': {}}, 'warm': {'temperature': 1.0}}"
    more = [students, f"teacher:'{agent}.zip'", "n_envs:3", "n_teacher_episodes:0", "learning_starts:60"]
    arguments = ["--algo", "pd", "--env", "CartPole-v1", "-n", "200", "--eval-freq", "-1", "-f", str(tmp_path / "logs")]
    main(["zoo", "train", *arguments, "--device", "cpu", "-params", *more])
    for name, policy in {"small": "MlpPolicy", "warm": "MlpPolicy"}.items():
        folder = tmp_path / "logs" / "pd" / "CartPole-v1_1" / "students" / name / "pd" / "CartPole-v1_1"
        assert read_yaml(folder / "CartPole-v1" / "config.yml")["policy"] == policy
        assert load_teacher(folder, device="cpu").env_id == "CartPole-v1"


def test_further_students_take_over_the_optimizer():
    kwargs = {"policy_kwargs": {"net_arch": [8], "optimizer_class": "Muon", "optimizer_kwargs": {"momentum": 0.9}}}
    own = {"policy_kwargs": {"net_arch": [4], "optimizer_class": "SGD"}}
    model = pd({"small": "MlpPolicy", "own": own}, **kwargs)
    optimizers = {name: policy.optimizer for name, policy in weights(model).items()}
    assert [type(optimizers[name]).__name__ for name in ("", "small", "own")] == ["Muon", "Muon", "SGD"]
    assert optimizers["small"].defaults["momentum"] == 0.9 and optimizers["own"].defaults["momentum"] == 0


def test_a_trained_student_can_have_its_temperature_chosen(tmp_path: Path):
    pd().learn(200).save(tmp_path / "student")
    env = make_vec_env("CartPole-v1", 2)
    model = PolicyDistillation.load(tmp_path / "student", env, teacher=pd()._teacher, temperature="auto")
    model.learn(200, reset_num_timesteps=False)
    assert isinstance(model.temperature, float) and model.student.loss.temperature == model.temperature


class DropStudent(BaseCallback):
    """Leaves a student out at a step."""

    def __init__(self, name: str, at: int) -> None:
        super().__init__()
        self.name, self.at = name, at

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.n_calls >= self.at and self.name in self.model.students:
            self.model.drop_student(self.name)


def test_a_run_goes_on_without_the_student_that_it_left_out(tmp_path: Path):
    def callbacks(folder: Path, stop: int):
        return [CheckpointCallback(50, str(folder)), DropStudent("small", 60), StopAt(stop)]

    kwargs = {"rollout_policy": "linear", "n_envs": 3}
    whole = pd(PD_STUDENTS, **kwargs).learn(600, callbacks(tmp_path / "whole", 10_000))
    pd(PD_STUDENTS, **kwargs).learn(600, callbacks(tmp_path / "parts", 120))
    resumed = pd(PD_STUDENTS, **kwargs)
    resumed.load_run_state(tmp_path / "parts" / RUN_STATE)
    assert list(resumed.students) == ["warm"]
    resumed.learn(600 - resumed.num_timesteps, callbacks(tmp_path / "parts", 10_000))
    assert_same_students(whole, resumed)
    # A student that the run never had is not left out silently.
    other = pd({"warm": PD_STUDENTS["warm"], "new": {"policy_kwargs": {"net_arch": [4]}}}, **kwargs)
    with pytest.raises(StateFileError, match="does not fit this model"):
        other.load_run_state(tmp_path / "parts" / RUN_STATE)


def test_bits_for_a_model_with_several_students_are_refused(tmp_path: Path):
    model = qpd({"other": {"policy_kwargs": {"net_arch": {"pi": [4], "vf": []}}}})
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"weight_bits would be those of one student, .* further ones: other. Load it"):
        QPD.load(tmp_path / "model", device="cpu", weight_bits=4)
    model.student_model("other").save(tmp_path / "other")
    assert QPD.load(tmp_path / "other", device="cpu", weight_bits=4).weight_bits == 4
