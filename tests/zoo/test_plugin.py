import pkgutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import matplotlib.pyplot as plt
import optuna
import pytest
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

import sb3_distill_zoo
from sb3_distill.pd import PolicyDistillation
from sb3_distill.zoo import registration, samplers
from tests.helpers import run_python

ALGOS = (
    "{a2c,ddpg,dqn,ppo,sac,td3,ars,crossq,qrdqn,tqc,trpo,ppo_lstm"
    + "".join(f",{k}" for k in registration.ALGORITHMS)
    + "}"
)
FINDERS = "[type(finder).__name__ for finder in __import__('sys').meta_path]"


# --- The start-up hook


def test_start_up_adds_one_finder_and_imports_nothing_else(tmp_path: Path) -> None:
    code = f"import sys; print({FINDERS}.count('ZooFinder'), {{'torch', 'sb3_distill', 'typing'}} & set(sys.modules))"
    assert run_python(tmp_path, "-c", code).stdout == "1 set()\n"


def test_environment_variable_switches_the_hook_off(tmp_path: Path) -> None:
    code = f"import sys; print('ZooFinder' in {FINDERS})"
    assert run_python(tmp_path, "-c", code, SB3_DISTILL_ZOO="0").stdout == "False\n"


def test_start_up_file_is_silent_where_the_package_is_gone(tmp_path: Path) -> None:
    line = (Path(registration.__file__).parents[2] / "sb3_distill.pth").read_text()
    assert line.startswith("import ") and line.count("\n") == 1, "site executes single lines that begin with `import`"
    # -I -S: neither this folder nor site-packages
    result = run_python(tmp_path, "-I", "-S", "-c", line + "print('started')")
    assert (result.stdout, result.stderr) == ("started\n", "")


def test_start_file_names_the_hook() -> None:
    lines = (Path(registration.__file__).parents[2] / "sb3_distill.start").read_text().split()
    assert [pkgutil.resolve_name(line).__name__ for line in lines] == ["install"]


def test_installing_twice_adds_one_finder_and_modules_look_and_run_untouched(tmp_path: Path) -> None:
    code = f"""
import importlib.machinery, importlib.util, inspect, runpy, sys
import sb3_distill_zoo
sb3_distill_zoo.install()
sb3_distill_zoo.install()
runpy.run_module("rl_zoo3.hyperparams_opt", run_name="__main__")
import rl_zoo3.exp_manager, rl_zoo3.hyperparams_opt, rl_zoo3.utils
assert {FINDERS}.count("ZooFinder") == 1
for module in (rl_zoo3.utils, rl_zoo3.hyperparams_opt, rl_zoo3.exp_manager):
    assert type(module.__loader__) is importlib.machinery.SourceFileLoader
    assert module.__spec__.loader is module.__loader__ and "exec_module" not in vars(module.__loader__)
    assert inspect.getsource(module) == importlib.util.find_spec(module.__name__).loader.get_source(module.__name__)
print(rl_zoo3.ALGOS["pd"].__name__, rl_zoo3.hyperparams_opt.HYPERPARAMS_SAMPLER["pd"].__name__)
"""
    assert run_python(tmp_path, "-c", code).stdout == "PolicyDistillation sample_pd_params\n"


def test_modules_that_are_loaded_already_are_registered_too(tmp_path: Path) -> None:
    code = """
import rl_zoo3.exp_manager, sb3_distill_zoo
assert "pd" not in rl_zoo3.ALGOS
sb3_distill_zoo.add_finder()
print(rl_zoo3.ALGOS["pd"].__name__, rl_zoo3.exp_manager.HYPERPARAMS_CONVERTER["pd"].__name__)
"""
    assert run_python(tmp_path, "-c", code, SB3_DISTILL_ZOO="0").stdout == "PolicyDistillation convert_pd_params\n"


def test_zoo_works_without_us_where_our_package_is_broken(tmp_path: Path) -> None:
    (tmp_path / "sb3_distill.py").write_text("raise ImportError('half of it is missing')")
    result = run_python(tmp_path, "-m", "rl_zoo3.train", "--help", PYTHONPATH=str(tmp_path))
    assert "--optimize-hyperparameters" in result.stdout and ",pd" not in result.stdout
    assert result.stderr.count("RuntimeWarning") == 1
    assert "ImportError: half of it is missing" in result.stderr


# --- What the Zoo learns


def test_keys_that_are_taken_stay() -> None:
    theirs = {"pd": "somebody else's"}
    names = ("ALGOS", "HYPERPARAMS_SAMPLER", "HYPERPARAMS_CONVERTER")
    zoo = ModuleType("zoo")
    vars(zoo).update({name: dict(theirs) for name in names})
    registration.register_algorithms(zoo)
    registration.register_samplers(zoo)
    assert [vars(zoo)[name]["pd"] for name in names] == [theirs["pd"]] * 3


@pytest.mark.parametrize("key", registration.ALGORITHMS)
def test_every_algorithm_is_complete(key: str) -> None:
    assert callable(pkgutil.resolve_name(registration.ALGORITHMS[key]).load)
    assert key in samplers.HYPERPARAMS_SAMPLER and key in samplers.HYPERPARAMS_CONVERTER
    config = yaml.safe_load(registration.default_config(key).read_text())
    assert "default" in config and {"atari", "MultiTaskAtari-v0"} & set(config)
    assert all({"policy", "n_timesteps"} <= set(hyperparams) for hyperparams in config.values())


def test_somebody_elses_algorithm_of_our_key_keeps_its_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    sb3_distill_zoo.add_finder()
    import rl_zoo3.exp_manager

    def config(algo: str, **kwargs: str) -> str:
        return str(rl_zoo3.exp_manager.ExperimentManager(None, algo, "CartPole-v1", "logs", **kwargs).config)

    ours, dqn, given = config("pd"), config("dqn"), config("pd", config="mine.yml")
    monkeypatch.setitem(rl_zoo3.ALGOS, "pd", rl_zoo3.ALGOS["dqn"])
    assert ours == str(registration.default_config("pd"))
    assert Path(dqn).parent == Path(config("pd")).parent != Path(ours).parent and given == "mine.yml"


def test_console_script_needs_no_start_up_hook(tmp_path: Path) -> None:
    assert ALGOS in run_python(tmp_path, "-m", "sb3_distill", "zoo", "train", "--help", SB3_DISTILL_ZOO="0").stdout


# --- The Zoo's commands, from end to end

STUDENT = "logs/pd/CartPole-v1_1/CartPole-v1.zip"


def arguments_of(teacher: Path, *arguments: str) -> list[str]:
    quick = ["-params", f"teacher:'{teacher}'", "n_teacher_episodes:1", "learning_starts:100"]
    return ["--algo", "pd", "--env", "CartPole-v1", *arguments, *quick]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, cartpole_teacher: Path) -> Path:
    """Folder with a student in ``logs``, from a run with all that goes on beside training switched on."""
    folder = tmp_path_factory.mktemp("trained")
    extras = ["--eval-freq", "400", "--eval-episodes", "1", "--save-freq", "500", "--save-replay-buffer", "-P"]
    command = arguments_of(cartpole_teacher, "-n", "1000", "--seed", "1", "-tb", "tb", *extras)
    output = run_python(folder, "-m", "rl_zoo3.train", *command).stdout
    assert f"Loading hyperparameters from: {registration.default_config('pd')}" in output
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


def test_train_takes_a_conf_file(train: Callable[..., str], tmp_path: Path) -> None:
    config = {"CartPole-v1": {"policy": "MlpPolicy", "n_timesteps": 300, "loss": "nll"}}
    (tmp_path / "mine.yml").write_text(yaml.dump(config))
    output = train("--eval-freq", "-1", "--conf-file", "mine.yml")
    assert "Loading hyperparameters from: mine.yml" in output
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
