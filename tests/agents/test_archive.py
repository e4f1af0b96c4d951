"""Whatever is in an agent's files: it is read, or refused with a reason, and never run."""

import base64
import io
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch as th
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import VecNormalize
from stable_baselines3.dqn.policies import DQNPolicy
from torch import nn

from sb3_distill import load_teacher
from sb3_distill.agents.archive import read_archive
from sb3_distill.agents.config import read_keywords, read_yaml
from sb3_distill.agents.files import AgentError
from sb3_distill.agents.normalization import read_normalization
from sb3_distill.agents.rebuild.classes import with_classes
from sb3_distill.agents.rebuild.weights import read_activation
from tests.helpers import preferences


@pytest.fixture
def run_folder(cartpole_teacher, tmp_path):
    """A small agent in the Zoo's layout."""
    run = tmp_path / "agents" / "dqn" / "CartPole-v1_1"
    (run / "CartPole-v1").mkdir(parents=True)
    shutil.copy(cartpole_teacher, run / "CartPole-v1.zip")
    (run / "CartPole-v1" / "config.yml").write_text("policy: MlpPolicy\npolicy_kwargs: dict(net_arch=[32])\n")
    (run / "CartPole-v1" / "args.yml").write_text("algo: dqn\nenv: CartPole-v1\n")
    return run


def rewrite(path, **members):
    """The zip again, with other members."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    content.update(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            if data is not None:
                archive.writestr(name, data)


def change_data(path, **attributes):
    with zipfile.ZipFile(path) as archive:
        data = json.loads(archive.read("data"))
    rewrite(path, data=json.dumps({**data, **attributes}))


def change_weights(path, weights):
    buffer = io.BytesIO()
    th.save(weights, buffer)
    rewrite(path, **{"policy.pth": buffer.getvalue()})


def nan_weights(path):
    weights = {name: tensor.clone() for name, tensor in read_archive(path).weights.items()}
    weights["q_net.q_net.0.weight"][0, 0] = float("nan")
    change_weights(path, weights)


def flip(path):
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("policy.pth")
    content[info.header_offset + info.compress_size // 2] ^= 0xFF
    path.write_bytes(content)


def cut(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def another_algorithm(path):
    change_data(path, policy_class={"__module__": "sb3_contrib.newest.policies"})
    for name in ("args.yml", "config.yml"):
        (path.with_suffix("") / name).unlink()
    path.parents[1].rename(path.parents[2] / "newest")


class Hundredfold(FlattenExtractor):
    """Has no weights, so that those of the agent look like a stock agent's."""

    def forward(self, observations):
        return super().forward(observations) * 100


class Contrary(DQNPolicy):
    def _predict(self, obs, deterministic=True):
        return 1 - super()._predict(obs, deterministic)


def custom_agent(policy="MlpPolicy", **policy_kwargs):
    return DQN(policy, "CartPole-v1", buffer_size=10, policy_kwargs=policy_kwargs, seed=0, device="cpu")


DAMAGED_ZIPS = {
    "truncated": (lambda path: cut(path, 0.6), "(cannot be read as an|is not a complete) SB3 zip"),
    "truncated at its very end": (lambda path: cut(path, 0.995), "(cannot be read as an|is not a complete) SB3 zip"),
    "flipped bits": (flip, "cannot be read as an SB3 zip"),
    "no zip at all": (lambda path: path.write_text("hello"), "cannot be read as an SB3 zip"),
    "empty file": (lambda path: path.write_bytes(b""), "cannot be read as an SB3 zip"),
    "no weights": (lambda path: rewrite(path, **{"policy.pth": None}), "policy.pth missing"),
    "NaN weights": (nan_weights, r"q_net.q_net.0.weight hold NaN"),
    "weights without names": (lambda path: change_weights(path, {1: th.zeros(2)}), "holds no state dict"),
    "one number as weights": (
        lambda path: change_weights(path, {"q_net.q_net.0.weight": th.tensor(1.0)}),
        "cannot be rebuilt from its files",
    ),
    "weights of another agent": (lambda path: change_weights(path, {"w": th.zeros(2)}), "stock architecture"),
    "no agent in the folder": (lambda path: path.unlink(), "holds no agent: no .zip in it"),
    "another kind of algorithm": (another_algorithm, "Unknown algorithm of a teacher 'newest'"),
    "unknown activation": (
        lambda path: change_data(path, policy_kwargs={"activation_fn": "my.Swish"}),
        "activation function 'my.Swish' is not known",
    ),
    "features extractor of its own": (
        lambda path: custom_agent(features_extractor_class=Hundredfold).save(path),
        "features_extractor_class is not one of SB3's own .*Hundredfold.*allow_pickle=True",
    ),
    "policy of its own": (
        lambda path: custom_agent(Contrary).save(path),
        "policy_class is not one of SB3's own .*allow_pickle=True",
    ),
    "action space without a size": (
        lambda path: change_data(path, action_space={":type:": "<class 'gym.spaces.discrete.Discrete'>", "x": 1}),
        "cannot be rebuilt from its files",
    ),
}


@pytest.mark.parametrize("name", DAMAGED_ZIPS)
def test_damaged_agents_are_refused(name, run_folder):
    damage, message = DAMAGED_ZIPS[name]
    damage(run_folder / "CartPole-v1.zip")
    run = next(run_folder.parents[1].glob("*/CartPole-v1_1"))
    with pytest.raises(AgentError, match=message) as caught:
        load_teacher(run)
    assert str(run) in str(caught.value)


def test_layers_of_its_own_are_loaded_where_the_user_trusts_them(run_folder):
    model = custom_agent(features_extractor_class=Hundredfold)
    model.save(run_folder / "CartPole-v1.zip")
    obs = th.ones(3, 4)
    with th.no_grad():
        expected = model.q_net(obs)
    assert th.equal(preferences(load_teacher(run_folder, device="cpu", allow_pickle=True), obs), expected)
    assert th.equal(preferences(load_teacher(model, device="cpu"), obs), expected)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 2**20), bit=st.integers(0, 7))
def test_no_flipped_bit_goes_unnoticed(cartpole_teacher, tmp_path, position, bit):
    """Wherever a bit is flipped, the weights that come out are those that were saved, or none."""
    content = bytearray(cartpole_teacher.read_bytes())
    content[position % len(content)] ^= 1 << bit
    (tmp_path / "agent.zip").write_bytes(content)
    expected = read_archive(cartpole_teacher).weights
    try:
        weights = read_archive(tmp_path / "agent.zip").weights
    except AgentError:
        return
    assert weights.keys() == expected.keys()
    assert all(th.equal(weights[name], expected[name]) for name in expected)


class Malicious:
    def __init__(self, sentinel):
        self.sentinel = sentinel

    def __reduce__(self):
        return (Path.touch, (self.sentinel,))


@pytest.mark.parametrize("place", ["policy.pth", "vecnormalize.pkl", "args.yml", "evaluations.npz", "data"])
def test_nothing_in_the_files_is_run(place, run_folder, tmp_path):
    sentinel = tmp_path / "run"
    evil = Malicious(sentinel)
    if place == "policy.pth":
        change_weights(run_folder / "CartPole-v1.zip", evil)
    elif place == "data":
        with zipfile.ZipFile(run_folder / "CartPole-v1.zip") as archive:
            data = json.loads(archive.read("data"))
        serialized = {":serialized:": base64.b64encode(pickle.dumps(evil)).decode()}
        plain = {name: data[name] if isinstance(data[name], dict) else {} for name in data}
        change_data(run_folder / "CartPole-v1.zip", **{name: {**plain[name], **serialized} for name in data})
    elif place == "evaluations.npz":
        np.savez(run_folder / place, results=np.array([evil], dtype=object))
    elif place == "vecnormalize.pkl":
        (run_folder / "CartPole-v1" / place).write_bytes(pickle.dumps(evil))
    else:
        (run_folder / "CartPole-v1" / place).write_text(yaml.dump(evil))
    if place in ("data", "evaluations.npz"):
        assert load_teacher(run_folder).facts.recorded_score is None
    else:
        with pytest.raises(AgentError, match="cannot be"):
            load_teacher(run_folder)
    assert not sentinel.exists()


def test_the_zoos_yaml_is_read(tmp_path):
    path = tmp_path / "config.yml"
    path.write_text(
        "!!python/object/apply:collections.OrderedDict\n- - - frame_stack\n    - 4\n"
        "  - - betas\n    - !!python/tuple\n      - 0.9\n      - 0.99\n"
    )
    assert read_yaml(path) == {"frame_stack": 4, "betas": (0.9, 0.99)}
    assert read_yaml(tmp_path / "nothing.yml") == read_yaml(None) == {}


def test_classes_in_the_zoos_yaml_are_read_by_name(tmp_path):
    kwargs = {"activation_fn": nn.Tanh, "optimizer_class": th.optim.AdamW, "sizes": (1, 2)}
    path = tmp_path / "config.yml"
    path.write_text(yaml.dump({"policy_kwargs": kwargs}))
    names = {"activation_fn": "torch.nn.modules.activation.Tanh", "optimizer_class": "torch.optim.adamw.AdamW"}
    content = read_yaml(path)
    assert content == {"policy_kwargs": {**names, "sizes": (1, 2)}}
    assert read_activation(content["policy_kwargs"]["activation_fn"], nn.ReLU) is nn.Tanh
    assert with_classes(content) == {"policy_kwargs": kwargs}
    path.write_text("policy_kwargs:\n  activation_fn: !!python/name:os.system ''")
    with pytest.raises(AgentError, match=r"line 2, .*activation_fn: .*: the class os.system is not known; known are"):
        read_yaml(path)


@pytest.mark.parametrize("start", ["", "!!python/object/apply:collections.OrderedDict\n"])
def test_keys_that_are_written_twice_are_refused(start, tmp_path):
    path = tmp_path / "config.yml"
    path.write_text(f"{start}- - - a\n    - 1\n  - - a\n    - 2\n" if start else "a: 1\nb: 3\na: 2\n")
    with pytest.raises(AgentError, match=r"config.yml: The key 'a' is written twice, in line \d and in line \d"):
        read_yaml(path)


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.getcwd []",
        "a: !!python/name:os.getcwd",
        "a: !!int ''",
        "a: !!bool maybe",
        "a: 2001-99-99",
        "a: \x00",
        "a: {",
        "a: !!python/tuple {}",
        "[" * 3000,
        "- a",
        "",
    ],
)
def test_yaml_that_is_something_else_is_refused(text, tmp_path):
    path = tmp_path / "config.yml"
    path.write_text(text)
    with pytest.raises(AgentError, match=r"(?s)config.yml (cannot be read safely \(\w+: .+\)|holds no mapping)"):
        read_yaml(path)


@pytest.mark.parametrize(
    ("text", "keywords"),
    [
        (
            "dict(net_arch=[256, 256], activation_fn=nn.ReLU, ortho_init=False, log_std_init=-2)",
            {"net_arch": [256, 256], "activation_fn": "nn.ReLU", "ortho_init": False, "log_std_init": -2},
        ),
        ("dict(net_arch=dict(pi=[8], vf=[4]))", {"net_arch": {"pi": [8], "vf": [4]}}),
        ("{'norm_obs': True, 'norm_reward': False}", {"norm_obs": True, "norm_reward": False}),
        ({"net_arch": [8]}, {"net_arch": [8]}),
        ("dict(size=compute(), lr=lambda _: 1, **more, width=8)", {"width": 8}),
        ("dict(a={[]: 1}, b=1)", {"b": 1}),
        ("__import__('os').getcwd()", {}),
        ("dict(a=" + "-" * 5000 + "1)", {}),
        ("(" * 5000, {}),
        ("dict(a=", {}),
        (True, {}),
    ],
)
def test_keywords_are_read_and_not_evaluated(text, keywords):
    assert read_keywords(text) == keywords


@given(st.text())
def test_any_text_is_read_as_keywords_or_none(text):
    assert isinstance(read_keywords(text), dict)


# 3: Python 3.7, with which the Zoo's agents were saved; 4: until Python 3.13; 5: since then
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_statistics_of_every_pickle_protocol(protocol, tmp_path):
    env = VecNormalize(make_vec_env("CartPole-v1", 2, seed=0), clip_obs=3.0, epsilon=1e-5)
    env.action_space.seed(0)
    env.reset()
    for _ in range(20):
        env.step(np.array([env.action_space.sample() for _ in range(2)]))
    path = tmp_path / "vecnormalize.pkl"
    path.write_bytes(pickle.dumps(env, protocol=protocol))
    found = read_normalization(path)
    assert np.array_equal(found.mean, env.obs_rms.mean) and np.array_equal(found.var, env.obs_rms.var)
    assert (found.epsilon, found.clip_obs) == (1e-5, 3.0)
    env.norm_obs = False
    env.save(path)
    assert read_normalization(path) is None


def test_statistics_saved_with_an_older_numpy(tmp_path):
    """NumPy 1 has its functions in numpy.core, NumPy 2 in numpy._core."""
    env = VecNormalize(make_vec_env("CartPole-v1", 1))
    old = pickle.dumps(env, protocol=3).replace(b"numpy._core", b"numpy.core")
    assert b"numpy.core.multiarray" in old
    (tmp_path / "vecnormalize.pkl").write_bytes(old)
    assert np.array_equal(read_normalization(tmp_path / "vecnormalize.pkl").mean, env.obs_rms.mean)


@pytest.mark.parametrize("content", [b"", b"hello", pickle.dumps([1]), pickle.dumps(print), pickle.dumps({})[:-1]])
def test_what_is_no_statistics_is_refused(content, tmp_path):
    path = tmp_path / "vecnormalize.pkl"
    path.write_bytes(content)
    with pytest.raises(AgentError, match="cannot be used as VecNormalize statistics"):
        read_normalization(path)


def test_students_of_earlier_versions_say_so(cartpole_teacher, tmp_path):
    path = tmp_path / "agent.zip"
    shutil.copy(cartpole_teacher, path)
    change_data(path, policy_class={"__module__": "sb3_distill.common.policies"})
    with pytest.raises(AgentError, match=r"sb3_distill.common.policies is of an earlier version: train"):
        load_teacher(path)
