import argparse
import pkgutil
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import sb3_distill_zoo
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


def test_the_verb_needs_no_hook_and_registers_modules_that_are_loaded_already(tmp_path: Path) -> None:
    code = """
import contextlib
import rl_zoo3.exp_manager
from sb3_distill.cli import main
assert "pd" not in rl_zoo3.ALGOS
with contextlib.suppress(SystemExit):
    main(["zoo", "train", "--help"])
print(rl_zoo3.ALGOS["pd"].__name__, rl_zoo3.exp_manager.HYPERPARAMS_CONVERTER["pd"].__name__)
"""
    printed = run_python(tmp_path, "-c", code, SB3_DISTILL_ZOO="0").stdout
    assert ALGOS in printed and printed.endswith("PolicyDistillation convert_pd_params\n")


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
    vars(zoo).update({name: dict(theirs) for name in names}, StoreDict=type("StoreDict", (argparse.Action,), {}))
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


def test_runs_that_begin_at_once_have_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sb3_distill_zoo.add_finder()
    import rl_zoo3.exp_manager

    # All have looked for a free number before the first of them makes its folder.
    runs = [rl_zoo3.exp_manager.ExperimentManager(None, "pd", "CartPole-v1", "logs") for _ in range(3)]
    for run in runs:
        run.create_log_folder()
    names = [f"logs/pd/CartPole-v1_{number}" for number in (1, 2, 3)]
    assert [run.save_path for run in runs] == names
    assert all(Path(name, "CartPole-v1").is_dir() for name in names)
    assert [run.params_path for run in runs] == [f"{name}/CartPole-v1" for name in names]
