"""Statistics of VecNormalize: of a teacher that lost them, and of the moment when a model was saved."""

import csv
import json
import warnings
from itertools import pairwise

import numpy as np
import pytest
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback, EveryNTimesteps
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_distill import QPD, PolicyDistillation, RealTimeDistillDQN, load_teacher
from sb3_distill.cli import main

SMALL = {"n_steps": 16, "batch_size": 16, "device": "cpu", "seed": 0}
QUICK = {"learning_starts": 16, "buffer_size": 200, "n_teacher_episodes": 0, "device": "cpu", "seed": 0}


def normalized(**kwargs):
    return VecNormalize(make_vec_env("CartPole-v1", 1, seed=0), **kwargs)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An agent that was trained behind VecNormalize, without and with its statistics beside it."""
    folder = tmp_path_factory.mktemp("run")
    model = PPO("MlpPolicy", normalized(), **SMALL).learn(32)
    for name in ("alone", "whole"):
        (folder / name).mkdir()
        model.save(folder / name / "agent")
    model.get_vec_normalize_env().save(folder / "whole" / "vecnormalize.pkl")
    return folder


def messages_of(make):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make()
    return [str(warning.message) for warning in caught if "normalises observations" in str(warning.message)]


@pytest.mark.parametrize("cls", [PolicyDistillation, QPD])
def test_a_teacher_that_lost_its_statistics_is_named_once(cls, run):
    alone = run / "alone" / "agent.zip"
    for teacher in (PPO.load(alone, device="cpu"), str(alone), load_teacher(alone)):

        def learn_in_pieces(teacher=teacher):
            model = cls("MlpPolicy", normalized(), teacher, **QUICK)
            model.learn(20).learn(20, reset_num_timesteps=False)

        (message,) = messages_of(learn_in_pieces)
        assert "no statistics of its own" in message and "vecnormalize.pkl" in message
        assert load_teacher(teacher).source in message


def test_nothing_is_said_where_nothing_is_missing(run):
    statistics = VecNormalize.load(str(run / "whole" / "vecnormalize.pkl"), make_vec_env("CartPole-v1", 1))
    whole = PPO.load(run / "alone" / "agent.zip", env=statistics, device="cpu")
    assert np.array_equal(load_teacher(whole).normalization.mean, statistics.obs_rms.mean)
    raw = make_vec_env("CartPole-v1", 1)
    for env, teacher in (
        (normalized(), whole),
        (normalized(), str(run / "whole" / "agent.zip")),
        (normalized(norm_obs=False), str(run / "alone" / "agent.zip")),
        (raw, str(run / "alone" / "agent.zip")),
    ):
        assert not messages_of(lambda env=env, teacher=teacher: QPD("MlpPolicy", env, teacher, **QUICK).learn(20))


def test_a_resumed_student_says_it_too(run, tmp_path):
    alone = str(run / "alone" / "agent.zip")
    QPD("MlpPolicy", make_vec_env("CartPole-v1", 1), alone, **QUICK).learn(20).save(tmp_path / "student")
    resumed = QPD.load(tmp_path / "student", env=normalized(), device="cpu")
    assert len(messages_of(lambda: resumed.learn(20))) == 1


def test_an_agent_to_start_from(run):
    """In real-time distillation it gets the normalised observations, so the advice is another one."""
    teacher = DQN("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [8]}, buffer_size=100, device="cpu")
    kwargs = {"policy_kwargs": {"net_arch": [8]}, "buffer_size": 100, "eval_freq": -1, "device": "cpu"}
    make = lambda env: RealTimeDistillDQN("MlpPolicy", env, ["MlpPolicy"], teacher, **kwargs)  # noqa: E731
    (message,) = messages_of(lambda: make(normalized()))
    assert "leave VecNormalize out" in message
    assert not messages_of(lambda: make(make_vec_env("CartPole-v1", 1)))


class Remember(BaseCallback):
    """What the statistics were when it was called last."""

    def _on_step(self):
        self.mean = self.model.get_vec_normalize_env().obs_rms.mean.copy()
        return True


def learners(run):
    teacher = str(run / "whole" / "agent.zip")
    students = {"students": ["MlpPolicy"], "learning_starts": 16, "buffer_size": 200, "eval_freq": -1, "seed": 0}
    return {
        "pd": lambda env: PolicyDistillation("MlpPolicy", env, teacher, **QUICK),
        "qpd": lambda env: QPD("MlpPolicy", env, teacher, **QUICK),
        "rtpd": lambda env: RealTimeDistillDQN("MlpPolicy", env, device="cpu", **students),
    }


@pytest.mark.parametrize("algo", ["pd", "qpd", "rtpd"])
def test_saved_models_keep_the_statistics_of_their_moment(algo, run, tmp_path):
    of_best, of_checkpoint = Remember(), Remember()
    eval_env = normalized(training=False, norm_reward=False)
    best = EvalCallback(eval_env, of_best, n_eval_episodes=1, eval_freq=10, best_model_save_path=str(tmp_path))
    checkpoint = CheckpointCallback(40, str(tmp_path))
    model = learners(run)[algo](normalized())
    # Nested callbacks are found too, and those that are passed twice get nothing twice.
    model.learn(50, callback=[EveryNTimesteps(10, best), checkpoint, EveryNTimesteps(40, of_checkpoint)])
    assert of_best.parent is best
    model.learn(20, callback=best, reset_num_timesteps=False)
    assert len(best.callback_on_new_best.callbacks) == 2
    model.learn(50)
    for name, saved in (("best_model", of_best), ("rl_model_40_steps", of_checkpoint)):
        agent = load_teacher(tmp_path / f"{name}.zip")
        assert np.array_equal(agent.normalization.mean, saved.mean)
        assert not np.array_equal(saved.mean, model.get_vec_normalize_env().obs_rms.mean)
        assert agent.facts.statistics_note is None


@pytest.mark.parametrize("training", [True, False])
def test_statistics_settle_in_the_second_half_of_a_run(run, training):
    """So that no late game changes what the student sees of all others; ``VecNormalize`` stays as the user made it."""
    env, counts = normalized(), []
    env.training = training

    def note(local, _):
        counts.append(env.obs_rms.count)
        return env.training is training

    learners(run)["qpd"](env).learn(60, callback=note)
    assert len(counts) == 60 and env.training is training
    moved = [after > before for before, after in pairwise(counts)]
    assert moved == ([True] * 29 + [False] * 30 if training else [False] * 59)


def test_statistics_of_an_earlier_run_do_not_stay_beside_a_best_model(run, tmp_path):
    for env, kept in ((normalized, True), (lambda **_: make_vec_env("CartPole-v1", 1), False)):
        callback = EvalCallback(
            env(training=False), n_eval_episodes=1, eval_freq=10, best_model_save_path=str(tmp_path)
        )
        learners(run)["pd"](env()).learn(20, callback=callback)
        assert (load_teacher(tmp_path / "best_model").normalization is not None) is kept


@pytest.fixture(scope="module")
def zoo_run(run, tmp_path_factory):
    """A run of the Zoo behind VecNormalize, with a best model and a checkpoint from before its end."""
    folder = tmp_path_factory.mktemp("zoo")
    teacher = f"teacher:{str(run / 'whole' / 'agent.zip')!r}"
    options = ["-n", "90", "--eval-freq", "40", "--eval-episodes", "1", "--save-freq", "40", "--device", "cpu"]
    params = ["-params", teacher, "n_teacher_episodes:0", "learning_starts:16", "normalize:True", "n_envs:1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [])
        arguments = ["--algo", "pd", "--env", "CartPole-v1", "-f", str(folder), "--seed", "0"]
        assert main(["zoo", "train", *arguments, *options, *params]) == 0
    return folder / "pd" / "CartPole-v1_1"


def count_of(path):
    return VecNormalize.load(str(path), make_vec_env("CartPole-v1", 1)).obs_rms.count


def test_a_run_of_the_zoo_keeps_them_too(zoo_run, capsys):
    final = zoo_run / "CartPole-v1" / "vecnormalize.pkl"
    # The statistics stay as they are from half of the run on, so both evaluations have counts of their own.
    assert count_of(final) == pytest.approx(46, abs=1)
    assert count_of(zoo_run / "rl_model_vecnormalize_40_steps.pkl") == pytest.approx(41, abs=1)
    assert count_of(zoo_run / "best_model_vecnormalize.pkl") in (pytest.approx(41, abs=1), pytest.approx(46, abs=1))
    assert main(["evaluate", str(zoo_run), "--best", "-n", "1", "--teacher", str(zoo_run), "--json"]) == 0
    last, best = json.loads(capsys.readouterr().out)["agents"]
    assert best["agent"].endswith("best_model.zip") and not {"statistics_note"} & (last.keys() | best.keys())


@pytest.mark.parametrize("name", ["best_model", "rl_model_40_steps"])
def test_statistics_of_another_moment_are_said_beside_the_score(zoo_run, name, tmp_path, capsys):
    """As in all runs of SB3's own algorithms, and of earlier versions."""
    for own in zoo_run.glob("*vecnormalize*.pkl"):
        own.rename(own.with_suffix(".away"))
    try:
        agent = str(zoo_run / f"{name}.zip")
        note = (
            f"No VecNormalize statistics were saved with {name}.zip. It plays with those of CartPole-v1/"
            "vecnormalize.pkl, which may be from another moment of the run, so its score may not be the one for which "
            "it was saved."
        )
        outputs = [tmp_path / f"scores.{ending}" for ending in ("json", "csv", "md")]
        with pytest.warns(UserWarning, match=f"{name}.zip: No VecNormalize statistics were saved"):
            assert main(["evaluate", agent, "-n", "1", "-o", *map(str, outputs)]) == 0
        assert f"{agent}: {note}" in capsys.readouterr().out
        row = json.loads(outputs[0].read_text())["agents"][-1]
        with outputs[1].open(newline="") as file:
            columns = list(csv.DictReader(file))[-1]
        assert row["statistics_note"] == columns["statistics_note"] == note and note in outputs[2].read_text()
        with pytest.warns(UserWarning, match="No VecNormalize statistics"):
            assert main(["teachers", agent]) == main(["teachers", agent, "--json"]) == 0
        shown = capsys.readouterr().out
        assert shown.count(note) == 2 and f'"statistics_note": "{note}"' in shown
        # The last model's are its own.
        assert load_teacher(zoo_run).facts.statistics_note is None
    finally:
        for own in zoo_run.glob("*.away"):
            own.rename(own.with_suffix(".pkl"))
