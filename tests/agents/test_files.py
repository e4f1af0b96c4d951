"""What belongs to an agent is known by what is in its folder, under every name that SB3 and the Zoo give it."""

import logging
import shutil
import warnings

import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import CheckpointCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_distill import PolicyDistillation, load_teacher
from sb3_distill.agents.files import AgentError
from sb3_distill.agents.sources import env_name_of_run, find_zoo_teacher
from sb3_distill.cli import main

SMALL = {"n_steps": 16, "batch_size": 16, "device": "cpu", "seed": 0}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A run of PPO behind VecNormalize, with the checkpoints that SB3 writes of both."""
    folder = tmp_path_factory.mktemp("checkpoints")
    env = VecNormalize(make_vec_env("CartPole-v1", 1, seed=0))
    callback = CheckpointCallback(16, str(folder), name_prefix="my_run", save_vecnormalize=True)
    model = PPO("MlpPolicy", env, **SMALL).learn(32, callback=callback)
    assert (folder / "my_run_vecnormalize_16_steps.pkl").is_file()
    model.save(folder / "final")
    return folder


def mean_of(path):
    return VecNormalize.load(str(path), make_vec_env("CartPole-v1", 1)).obs_rms.mean


@pytest.mark.parametrize("steps", [16, 32])
def test_a_checkpoint_has_the_statistics_that_were_saved_with_it(checkpoints, steps):
    teacher = load_teacher(checkpoints / f"my_run_{steps}_steps.zip")
    expected = mean_of(checkpoints / f"my_run_vecnormalize_{steps}_steps.pkl")
    assert np.array_equal(teacher.normalization.mean, expected)
    # SB3 leaves the ending out too.
    assert np.array_equal(load_teacher(checkpoints / f"my_run_{steps}_steps").normalization.mean, expected)
    assert load_teacher(checkpoints / "final.zip").normalization is None


@pytest.mark.parametrize(
    "name",
    [
        "CartPole-v1/vecnormalize.pkl",
        "CartPole-v1/vec_normalize.pkl",
        "vecnormalize.pkl",
        "vec_normalize.pkl",
        "rl_model_vecnormalize_16_steps.pkl",
        # The Zoo's SaveVecNormalizeCallback with a prefix
        "rl_model_16_steps.pkl",
        "vecnormalize_16_steps.pkl",
    ],
)
def test_a_checkpoint_in_a_run_folder_finds_every_name_of_the_statistics(checkpoints, name, tmp_path):
    run = tmp_path / "ppo" / "CartPole-v1_1"
    (run / "CartPole-v1").mkdir(parents=True)
    (run / "CartPole-v1" / "config.yml").write_text("normalize: true\npolicy: MlpPolicy\n")
    shutil.copy(checkpoints / "my_run_16_steps.zip", run / "rl_model_16_steps.zip")
    shutil.copy(checkpoints / "my_run_vecnormalize_16_steps.pkl", run / name)
    # The statistics of another checkpoint are not taken.
    shutil.copy(checkpoints / "my_run_vecnormalize_32_steps.pkl", run / "rl_model_vecnormalize_32_steps.pkl")
    expected = mean_of(checkpoints / "my_run_vecnormalize_16_steps.pkl")
    assert np.array_equal(load_teacher(run / "rl_model_16_steps.zip").normalization.mean, expected)


def test_a_checkpoint_prefers_its_own_statistics_to_those_of_the_run(checkpoints, tmp_path):
    run = tmp_path / "ppo" / "CartPole-v1_1"
    (run / "CartPole-v1").mkdir(parents=True)
    shutil.copy(checkpoints / "my_run_16_steps.zip", run / "rl_model_16_steps.zip")
    shutil.copy(checkpoints / "my_run_32_steps.zip", run / "CartPole-v1.zip")
    shutil.copy(checkpoints / "my_run_vecnormalize_16_steps.pkl", run / "rl_model_vecnormalize_16_steps.pkl")
    shutil.copy(checkpoints / "my_run_vecnormalize_32_steps.pkl", run / "CartPole-v1" / "vecnormalize.pkl")
    means = [load_teacher(run / f"{name}.zip").normalization.mean for name in ("rl_model_16_steps", "CartPole-v1")]
    for steps, mean in zip((16, 32), means, strict=True):
        assert np.array_equal(mean, mean_of(checkpoints / f"my_run_vecnormalize_{steps}_steps.pkl"))


UUID = "_0f8fad5b-d9cb-469f-a165-70867728950e"


@pytest.fixture
def run(checkpoints, tmp_path):
    """A run as the Zoo leaves it: the last model, the best one, a checkpoint, and the settings."""
    run = tmp_path / "logs" / "ppo" / "CartPole-v1_1"
    settings = run / "CartPole-v1"
    settings.mkdir(parents=True)
    for name, steps in (("CartPole-v1", 32), ("best_model", 16), ("rl_model_16_steps", 16)):
        shutil.copy(checkpoints / f"my_run_{steps}_steps.zip", run / f"{name}.zip")
    (settings / "args.yml").write_text("algo: ppo\nenv: CartPole-v1\n")
    (settings / "config.yml").write_text(
        "normalize: true\npolicy: MlpPolicy\nenv_kwargs: dict(sutton_barto_reward=True)\n"
    )
    shutil.copy(checkpoints / "my_run_vecnormalize_32_steps.pkl", settings / "vecnormalize.pkl")
    np.savez(run / "evaluations.npz", results=np.array([[1.0, 3.0]]))
    return run


def facts_of(source):
    teacher = load_teacher(source)
    score = teacher.facts.recorded_score and teacher.facts.recorded_score.best_mean
    return teacher.sha256, teacher.algo, teacher.env_id, teacher.env_kwargs, score, teacher.normalization.mean.tolist()


@pytest.mark.parametrize("name", [f"CartPole-v1_1{UUID}", "mine", "mine_2", "ppo on CartPole"])
@pytest.mark.parametrize("has_args", [True, False])
def test_a_run_is_known_by_what_is_in_it(run, name, has_args):
    if not has_args:
        (run / "CartPole-v1" / "args.yml").unlink()
    expected = {path.name: facts_of(path) for path in run.glob("*.zip")}
    assert all(facts[1:5] == ("ppo", "CartPole-v1", {"sutton_barto_reward": True}, 2.0) for facts in expected.values())
    assert facts_of(run) == expected["CartPole-v1.zip"]
    renamed = run.rename(run.with_name(name))
    # The last model, not the best one, and without a warning
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert facts_of(renamed) == expected["CartPole-v1.zip"]
    assert {path.name: facts_of(path) for path in renamed.glob("*.zip")} == expected
    assert env_name_of_run(renamed) == "CartPole-v1"


def test_the_last_model_may_be_renamed_too(run):
    expected = facts_of(run)
    (run / "CartPole-v1.zip").rename(run / "final.zip")
    assert facts_of(run) == facts_of(run.rename(run.with_name("mine"))) == expected
    shutil.copy(run.with_name("mine") / "best_model.zip", run.with_name("mine") / "other.zip")
    with pytest.raises(AgentError, match=r"name one of final.zip, other.zip"):
        load_teacher(run.with_name("mine"))


def test_a_folder_of_another_agent_is_not_taken(run, tmp_path):
    """In a collection of agents, only those that are named alike belong together."""
    collection = tmp_path / "collection"
    collection.mkdir()
    shutil.copytree(run / "CartPole-v1", collection / "normalised")
    shutil.copy(run / "CartPole-v1.zip", collection / "normalised.zip")
    shutil.copy(run / "CartPole-v1.zip", collection / "raw.zip")
    assert load_teacher(collection / "normalised.zip").normalization is not None
    assert load_teacher(collection / "raw.zip").normalization is None


@pytest.mark.parametrize("name", ["best_model", "my_run_16_steps", "model"])
@pytest.mark.parametrize("args", [None, "algo: ppo\nenv: Pendulum-v1\n", "env: [", "just text"])
def test_an_unrelated_folder_is_no_matter_of_the_agent(checkpoints, name, args, tmp_path):
    shutil.copy(checkpoints / "final.zip", tmp_path / f"{name}.zip")
    other = tmp_path / "hydra"
    other.mkdir()
    (other / "config.yml").write_text("frame_stack: 4\nenv_wrapper: []\n")
    if args is not None:
        (other / "args.yml").write_text(args)
    for source in (tmp_path / f"{name}.zip", tmp_path):
        facts = load_teacher(source).facts
        assert facts.recipe is None and facts.env_id is None and "not found: args.yml, config.yml" in facts.found


def test_an_unrelated_folder_does_not_hide_the_settings_of_a_run(run):
    expected = {path.name: facts_of(path) for path in run.glob("*.zip")}
    (run / "hydra").mkdir()
    (run / "hydra" / "args.yml").write_text("env: [")
    renamed = run.rename(run.with_name("mine"))
    assert {path.name: facts_of(path) for path in renamed.glob("*.zip")} == expected


def test_runs_with_a_uuid_are_found_by_algorithm_and_environment(run, monkeypatch):
    monkeypatch.setenv("RL_TRAINED_AGENTS", str(run.parents[1]))
    expected = facts_of(run)
    run.rename(run.with_name(f"CartPole-v1_1{UUID}"))
    assert facts_of("zoo:ppo/CartPole-v1") == expected and find_zoo_teacher("CartPole-v1").name.endswith(UUID)
    with pytest.raises(AgentError, match=r"At hand for this game: zoo:ppo/CartPole-v1, of later"):
        find_zoo_teacher("CartPole-v0", ["ppo"])


def test_of_several_agents_the_one_with_the_best_record_is_found(run, monkeypatch):
    monkeypatch.setenv("RL_TRAINED_AGENTS", str(run.parents[1]))
    other = run.parents[1] / "a2c" / run.name
    shutil.copytree(run, other)
    # The best evaluation, and that of the last model, which is the one that will play
    recorded = {run: (40.0, 20.0), other: (35.0, 30.0)}
    for folder, (best, last) in recorded.items():
        np.savez(folder / "evaluations.npz", timesteps=[1, 2], results=[[best], [last]], ep_lengths=[[9], [9]])
    assert find_zoo_teacher("CartPole-v1") == find_zoo_teacher("CartPole-v3") == other
    # Where a run has its best model alone, that is what will play.
    model = run / "CartPole-v1.zip"
    model.rename(run / "best_model.zip")
    assert find_zoo_teacher("CartPole-v1") == run
    (run / "best_model.zip").rename(model)
    # Without records, the order decides.
    for folder in recorded:
        (folder / "evaluations.npz").unlink()
    assert find_zoo_teacher("CartPole-v1") == run and find_zoo_teacher("CartPole-v1", ["a2c", "ppo"]) == other
    (other / "results.yml").write_text("evaluation: [{mean_reward: 1.0}]\n")
    assert find_zoo_teacher("CartPole-v1") == other
    (other / "results.yml").write_text("evaluation: [")
    assert find_zoo_teacher("CartPole-v1") == run


def test_one_line_says_which_files_were_read(run, checkpoints, caplog):
    caplog.set_level("INFO", "sb3_distill")
    assert load_teacher(run).found == (
        f"{run}/CartPole-v1.zip with CartPole-v1/args.yml, CartPole-v1/config.yml, CartPole-v1/vecnormalize.pkl"
    )
    found = load_teacher(checkpoints / "final.zip").found
    assert found == f"{checkpoints}/final.zip; not found: args.yml, config.yml, vecnormalize.pkl or vec_normalize.pkl"
    assert [record.getMessage() for record in caplog.records][1] == f"Loaded {found}"
    found = load_teacher(checkpoints / "my_run_16_steps.zip").found
    assert "with my_run_vecnormalize_16_steps.pkl; not found: args.yml" in found


def ignore_handlers_of_pytest(monkeypatch):
    """As if nobody had configured logging. Called within the test, since pytest adds its handlers before each."""
    monkeypatch.setattr(logging.getLogger("sb3_distill"), "propagate", False)


@pytest.mark.parametrize("level", ["NOTSET", "DEBUG", "ERROR"])
def test_commands_and_algorithms_say_it_once_and_leave_the_logger_as_it_was(run, monkeypatch, caplog, capsys, level):
    ignore_handlers_of_pytest(monkeypatch)
    caplog.set_level(level, "sb3_distill")
    told = f"Loaded {load_teacher(run).found}\n"
    capsys.readouterr()
    assert main(["teachers", str(run), "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == told and captured.out.startswith("[")
    for verbose in (0, 1):
        PolicyDistillation("MlpPolicy", "CartPole-v1", str(run), verbose=verbose, device="cpu").learn(0)
        assert capsys.readouterr().out.count(told) == verbose
    log = logging.getLogger("sb3_distill")
    assert logging.getLevelName(log.level) == level and log.handlers == []


def test_a_run_of_the_zoo_says_it_once(run, tmp_path, capsys, monkeypatch):
    ignore_handlers_of_pytest(monkeypatch)
    monkeypatch.setattr("sys.argv", [])
    arguments = ["--algo", "pd", "--env", "CartPole-v1", "-n", "20", "--eval-freq", "-1", "-f", str(tmp_path / "pd")]
    hyperparams = [f"teacher:{str(run)!r}", "n_teacher_episodes:0"]
    assert main(["zoo", "train", *arguments, "--device", "cpu", "-params", *hyperparams]) == 0
    captured = capsys.readouterr()
    assert (captured.out + captured.err).count(load_teacher(run).found) == 1


def test_messages_go_to_the_users_own_handlers(run, caplog, capsys):
    PolicyDistillation("MlpPolicy", "CartPole-v1", str(run), verbose=1, device="cpu")
    assert [record.getMessage() for record in caplog.records] == [f"Loaded {load_teacher(run).found}"]
    assert "Loaded" not in capsys.readouterr().out
