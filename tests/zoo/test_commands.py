"""The Zoo's commands with our algorithms, from end to end."""

import io
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import matplotlib.pyplot as plt
import optuna
import pytest
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from stable_baselines3 import PPO

import sb3_distill_zoo
from sb3_distill import load_teacher
from sb3_distill.agents.files import AgentError
from sb3_distill.cli import main
from sb3_distill.pd import PolicyDistillation
from sb3_distill.reading.arrays import read_npz
from sb3_distill.zoo import registration, samplers
from tests.helpers import REPOSITORY, run_python, status_of

STUDENT = "logs/pd/CartPole-v1_1/CartPole-v1.zip"


def arguments_of(teacher: Path, *arguments: str) -> list[str]:
    quick = ["-params", "n_envs:1", f"teacher:'{teacher}'", "n_teacher_episodes:1", "learning_starts:100"]
    return ["--algo", "pd", "--env", "CartPole-v1", *arguments, *quick]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, cartpole_teacher: Path) -> Path:
    """Folder with a student in ``logs``, from a run with all that goes on beside training switched on."""
    folder = tmp_path_factory.mktemp("trained")
    extras = ["--eval-freq", "400", "--eval-episodes", "1", "--save-freq", "500", "--save-replay-buffer", "-P"]
    command = arguments_of(cartpole_teacher, "-n", "1000", "--seed", "1", "-tb", "tb", *extras)
    with pytest.MonkeyPatch.context() as context, redirect_stdout(io.StringIO()) as output:
        context.chdir(folder)
        # The command sets it.
        context.setattr(sys, "argv", sys.argv)
        assert main(["zoo", "train", *command]) == 0
    assert f"Loading hyperparameters from: {registration.default_config('pd')}" in output.getvalue()
    return folder


@pytest.fixture
def train(zoo: Callable[..., str], tmp_path: Path, cartpole_teacher: Path) -> Callable[..., str]:
    return lambda *arguments: zoo(tmp_path, "train", *arguments_of(cartpole_teacher, *arguments))


def test_train_writes_what_the_zoo_writes(trained: Path) -> None:
    run = (trained / STUDENT).parent
    files = ["CartPole-v1.zip", "best_model.zip", "rl_model_500_steps.zip", "rl_model_1000_steps.zip"]
    files += ["evaluations.npz", "0.monitor.csv", "replay_buffer.pkl", "CartPole-v1/config.yml", "CartPole-v1/args.yml"]
    assert all((run / name).is_file() for name in files)
    assert list((trained / "tb").rglob("events.*"))


def test_train_resumes(train: Callable[..., str], trained: Path, tmp_path: Path) -> None:
    student = str(trained / STUDENT)
    output = train("-n", "300", "--eval-freq", "-1", "-i", student)
    assert "Loading replay buffer" in output
    resumed = PolicyDistillation.load(tmp_path / STUDENT)
    assert resumed._n_updates > PolicyDistillation.load(student)._n_updates


def test_train_refuses_a_setting_that_it_does_not_know_before_it_makes_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    # The command sets it.
    monkeypatch.setattr(sys, "argv", sys.argv)
    (tmp_path / "mine.yml").write_text("CartPole-v1: {policy: MlpPolicy, n_timesteps: 300, temprature: 0.1}\n")
    command = ["zoo", "train", "--algo", "pd", "--env", "CartPole-v1"]
    assert status_of([*command, "--conf-file", "mine.yml"]) == 2
    said = capsys.readouterr().err
    assert "sb3-distill zoo train: error: --algo pd: Unknown setting 'temprature'" in said and "'temperature'" in said
    assert not (tmp_path / "logs").exists()
    refused = {
        "teacher:'nowhere.zip'": "sb3-distill zoo train: error: There is no agent at nowhere.zip",
        "temperature:-1": "sb3-distill zoo train: error: temperature must be a positive finite number",
        "loss:nll": "name 'nll' is not defined. A text in an option needs quotes within quotes, NAME:\"'text'\"",
        "teacher:zoo:dqn/CartPole-v1": "-params/--hyperparams: invalid syntax in 'zoo:dqn/CartPole-v1'",
        "policy_kwargs:dict(activation_fn=nn.Relu)": "module 'torch.nn' has no attribute 'Relu'",
    }
    for setting, message in refused.items():
        assert status_of([*command, "-params", setting, "n_envs:1"]) == 2
        # Warnings stand before it.
        assert message in capsys.readouterr().err.splitlines()[-1]
        assert not list((tmp_path / "logs").rglob("*_1"))
    # A run that was stopped before it saved anything says so.
    (tmp_path / "logs" / "pd" / "CartPole-v1_1").mkdir(parents=True)
    (tmp_path / "logs" / "pd" / "CartPole-v1_1" / "0.monitor.csv").touch()
    with pytest.raises(AgentError, match=r"no .zip in it; this run was refused or stopped before it saved one"):
        load_teacher(tmp_path / "logs" / "pd" / "CartPole-v1_1")


@pytest.mark.parametrize(
    ("algo", "setting"),
    # The last one is refused when it would begin to learn.
    [("pd", "temperature:-1"), ("pd", "loss:nll"), ("pd", "temprature:0.1"), ("qpd", "learning_starts:1000000")],
)
def test_the_zoo_s_own_command_refuses_in_one_line_too(
    algo: str, setting: str, tmp_path: Path, ppo_teacher: PPO
) -> None:
    ppo_teacher.save(tmp_path / "CartPole-v1")
    named = ["-params", "teacher:'CartPole-v1.zip'", setting]
    command = ["-m", "rl_zoo3.train", "--algo", algo, "--env", "CartPole-v1", *named]
    said = run_python(tmp_path, *command, status=2, PYTHONPATH=str(REPOSITORY)).stderr
    assert said.splitlines()[-1].startswith("train.py: error: ") and "Traceback" not in said
    assert not list(tmp_path.glob("logs/*/*"))


def test_a_run_that_fails_once_it_has_played_keeps_its_folder(
    tmp_path: Path, cartpole_teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # The command sets it.
    monkeypatch.setattr(sys, "argv", sys.argv)
    command = arguments_of(cartpole_teacher, "-n", "300", "--eval-freq", "-1")
    # Its loss becomes NaN.
    assert status_of(["zoo", "train", *command, "learning_rate:1e30"]) == 2
    run = (tmp_path / STUDENT).parent
    assert (run / "CartPole-v1" / "config.yml").is_file() and not (tmp_path / STUDENT).exists()
    assert len((run / "0.monitor.csv").read_text().splitlines()) > 2


@pytest.mark.parametrize("name", ["NOTES", "notes.csv"])
def test_a_run_that_cannot_begin_keeps_what_somebody_else_wrote_into_its_folder(
    name: str, tmp_path: Path, cartpole_teacher: Path
) -> None:
    (tmp_path / "notes.py").write_text(
        "from pathlib import Path\n"
        "from stable_baselines3.common.callbacks import CheckpointCallback\n"
        "class Notes(CheckpointCallback):\n"
        "    def _on_training_start(self):\n"
        f"        Path('logs/pd/CartPole-v1_1/{name}').write_text('mine')\n"
        "        raise ValueError('that is all')\n"
    )
    callback = "callback:[{'notes.Notes':{'save_freq':1000,'save_path':'saved'}}]"
    command = ["-m", "rl_zoo3.train", *arguments_of(cartpole_teacher, "-n", "300"), callback]
    said = run_python(tmp_path, *command, status=1, PYTHONPATH=f"{REPOSITORY}:{tmp_path}").stderr
    assert said.splitlines()[-1] == "ValueError: that is all"
    assert (tmp_path / "logs" / "pd" / "CartPole-v1_1" / name).read_text() == "mine"


def test_who_calls_the_zoo_in_python_gets_the_exception(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sb3_distill_zoo.add_finder()
    from rl_zoo3.train import train

    monkeypatch.chdir(tmp_path)
    for setting, error in {"temperature:-1": ValueError, "loss:nll": NameError}.items():
        command = ["train", "--algo", "pd", "--env", "CartPole-v1", "-params", setting]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(error):
            train()


def test_train_takes_a_conf_file_and_evaluates_ten_times(train: Callable[..., str], tmp_path: Path) -> None:
    config = {"CartPole-v1": {"policy": "MlpPolicy", "n_timesteps": 300, "loss": "nll"}}
    (tmp_path / "mine.yml").write_text(yaml.dump(config))
    output = train("--eval-episodes", "1", "--conf-file", "mine.yml")
    assert "Loading hyperparameters from: mine.yml" in output
    run = (tmp_path / STUDENT).parent
    assert read_npz(run / "evaluations.npz", 10**6)["timesteps"].tolist() == list(range(30, 301, 30))
    # As `resume` reads it
    assert "- eval_freq\n    - 30\n" in (run / "CartPole-v1" / "args.yml").read_text()
    assert PolicyDistillation.load(tmp_path / STUDENT).loss == "nll"


def test_hyperparameters_are_searched_and_a_trial_is_trained(train: Callable[..., str], tmp_path: Path) -> None:
    study = ["--storage", "study.log", "--study-name", "study"]
    search = ["--optimize-hyperparameters", "--n-trials", "2", "--n-evaluations", "1", "--no-optim-plots", *study]
    output = train("-n", "300", "--eval-episodes", "1", *search)
    assert "Number of finished trials:  2" in output
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "study.log")))
    params = optuna.load_study(study_name="study", storage=storage).trials[1].params
    train("-n", "300", "--eval-freq", "-1", "--trial-id", "1", *study)
    (saved,) = tmp_path.rglob("CartPole-v1.zip")
    student = PolicyDistillation.load(saved)
    assert student.loss == params["loss"] and student.lr_schedule(1.0) == params["learning_rate"]
    assert student.policy_kwargs["net_arch"] == samplers.NET_ARCH[params["net_arch"]]


@pytest.mark.parametrize("script", ["enjoy --no-render --load-best", "record_video -o ."])
def test_a_student_is_shown(script: str, zoo: Callable[..., str], trained: Path, tmp_path: Path) -> None:
    zoo(tmp_path, *script.split(), "--algo", "pd", "--env", "CartPole-v1", "-f", trained / "logs", "-n", 50)
    assert len(list(tmp_path.rglob("*.mp4"))) == ("record_video" in script)


def test_plot_train(zoo: Callable[..., str], trained: Path) -> None:
    pytest.importorskip("seaborn", reason="needs the extra [plots]")
    plt.switch_backend("agg")
    zoo(trained, "plot_train", "-a", "pd", "-e", "CartPole-v1", "-f", "logs")
    assert plt.get_fignums()
    plt.close("all")


def test_a_run_that_cannot_begin_leaves_no_folder(
    tmp_path: Path, cartpole_teacher: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    wrong = arguments_of(tmp_path / "no_teacher.zip", "-n", "100")
    assert status_of(["zoo", "train", *wrong]) == 2
    assert "no_teacher.zip" in capsys.readouterr().err and not list((tmp_path / "logs").rglob("*.csv"))
    # Then the first run has the number 1; what is in its folder stays.
    assert main(["zoo", "train", *arguments_of(cartpole_teacher, "-n", "200")]) == 0
    assert (tmp_path / STUDENT).is_file()
    assert status_of(["zoo", "train", *wrong]) == 2
    assert [path.name for path in (tmp_path / "logs" / "pd").iterdir()] == ["CartPole-v1_1"]
