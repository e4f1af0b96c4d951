"""What a study file says never becomes code: the Zoo's command line evaluates literals and listed classes alone."""

import pytest
import rl_zoo3.utils
from stable_baselines3.common.buffers import ReplayBuffer
from torch import nn

from sb3_distill.study.cell import Cell, StudyError
from sb3_distill.study.file import read_study
from sb3_distill.study.job import train_arguments
from sb3_distill.study.values import as_argument
from tests.study.studies import CARTPOLE, write

CODE = "__import__('os').system('false')"


def evaluated(text):
    """As the Zoo does with arguments of its command line."""
    return eval(text, vars(rl_zoo3.utils))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("policy_kwargs", {"net_arch": [8], "activation_fn": "nn.Tanh"}, {"net_arch": [8], "activation_fn": nn.Tanh}),
        ("policy_kwargs", "dict(net_arch=[8], activation_fn=nn.ReLU)", {"net_arch": [8], "activation_fn": nn.ReLU}),
        ("policy_kwargs", "dict(net_arch=[dict(pi=[8], vf=[])])", {"net_arch": [{"pi": [8], "vf": []}]}),
        ("policy_kwargs", "{'optimizer_kwargs': {'eps': 1e-5}}", {"optimizer_kwargs": {"eps": 1e-5}}),
        ("normalize", "dict(norm_obs=False)", {"norm_obs": False}),
        ("normalize", "True", True),
        ("replay_buffer_class", "ReplayBuffer", ReplayBuffer),
        (
            "students",
            {"small": {"policy_kwargs": {"activation_fn": "ReLU"}}},
            {"small": {"policy_kwargs": {"activation_fn": nn.ReLU}}},
        ),
        ("teacher", CODE, CODE),
        ("learning_rate", "lin_1e-3", "lin_1e-3"),
        ("temperature", float("inf"), float("inf")),
    ],
)
def test_literals_and_listed_classes(name, value, expected):
    assert evaluated(as_argument(name, value)) == expected


def test_optimizers_and_extractors():
    kwargs = {"optimizer_class": "th.optim.SGD", "features_extractor_class": "FlattenExtractor"}
    found = evaluated(as_argument("policy_kwargs", kwargs))
    assert [cls.__name__ for cls in found.values()] == ["SGD", "FlattenExtractor"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"policy_kwargs": f"dict(net_arch={CODE})"}, "policy_kwargs must be a mapping .* text is not evaluated"),
        ({"policy_kwargs": CODE}, "text is not evaluated"),
        ({"policy_kwargs": {"activation_fn": CODE}}, "names .*; known are nn.Tanh, nn.ReLU"),
        ({"policy_kwargs": {"optimizer_class": "os.system"}}, "names 'os.system'; known are Adam"),
        ({"normalize": CODE}, "text is not evaluated"),
        # An attribute of what a call returns
        ({"normalize": f"({CODE}).real"}, "text is not evaluated"),
        ({"policy_kwargs": f"dict(activation_fn=({CODE}).real)"}, "text is not evaluated"),
        # A name, which the Zoo would evaluate once more
        ({"normalize": "antigravity.fly"}, "normalize must be a mapping, a number or true or false, not the text"),
        ({"env_kwargs": {f"a:{CODE}#": 1}}, "no name of an argument"),
        (
            {"env_kwargs": {"env_ids": ["nowhere:Env-v0"]}},
            "names the environment nowhere:Env-v0. Importing nowhere runs",
        ),
        ({"env": "nowhere:Env-v0"}, "names the environment nowhere:Env-v0. Importing nowhere runs its code"),
        ({"env_wrapper": "nowhere.Wrapper"}, "Importing nowhere runs its code"),
        # A class of a module that is there already
        ({"callback": [{"subprocess.Popen": {"args": ["false"]}}]}, "subprocess.Popen, which is not a"),
        ({"callback": "stable_baselines3.common.callbacks.CheckpointCallback"}, "which writes files"),
        ({"seed": 0, "temperature": {1, 2}}, "of the type set: use numbers, text, lists and mappings"),
    ],
)
def test_code_is_refused(settings, message, tmp_path):
    own = {**CARTPOLE["settings"], **settings}
    grid = {"loss": ["kl"]}
    path = write(tmp_path / "s.yml", settings=own, grid=grid, published=None, evaluation={})
    with pytest.raises(StudyError, match=rf"(?s)s.yml.*{message}"):
        read_study(path)


def test_settings_that_the_zoo_would_evaluate():
    with pytest.raises(StudyError, match=r"names 'subprocess.Popen'; known are ReplayBuffer"):
        as_argument("replay_buffer_class", "subprocess.Popen")
    with pytest.raises(StudyError, match=r"monitor_kwargs must be a mapping, .* not the text 'x'"):
        as_argument("monitor_kwargs", "x")


def test_the_zoo_gets_no_text_to_evaluate():
    cell = Cell("pd", "CartPole-v1", 0, hyperparams={"policy_kwargs": "dict(net_arch=[8])"}, env_kwargs={"a": "x"})
    arguments = train_arguments(cell, __file__, None)
    assert "policy_kwargs:{'net_arch': [8]}" in arguments and "a:'x'" in arguments


def test_a_grid_without_end_is_refused(tmp_path):
    grid = {"seed": list(range(500)), "temperature": list(range(1, 500))}
    with pytest.raises(StudyError, match=r"the grid has 249,500 cells, more than 10,000"):
        read_study(write(tmp_path / "s.yml", grid=grid, published=None))
