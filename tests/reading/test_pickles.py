"""Statistics of VecNormalize: what SB3 writes is read, and nothing that a pickle asks for is done."""

import pickle
import struct

import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_distill.agents.files import AgentError
from sb3_distill.agents.normalization import read_normalization


@pytest.fixture
def env():
    env = VecNormalize(make_vec_env("CartPole-v1", 1), clip_obs=3.0, epsilon=1e-5)
    env.obs_rms.mean, env.obs_rms.var = np.arange(4.0), np.arange(1.0, 5.0)
    return env


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["f8", ">f8", "f4"])
def test_every_protocol_and_byte_order(protocol, dtype, env, tmp_path):
    env.obs_rms.mean, env.obs_rms.var = env.obs_rms.mean.astype(dtype), np.asfortranarray(env.obs_rms.var, dtype)
    path = tmp_path / "vecnormalize.pkl"
    # As Python 3.7 with NumPy 1 wrote, and as today's
    content = pickle.dumps(env, protocol)
    path.write_bytes(content.replace(b"numpy._core", b"numpy.core") if protocol < 4 else content)
    found = read_normalization(path)
    assert found.mean.tolist() == [0, 1, 2, 3] and found.var.tolist() == [1, 2, 3, 4]
    assert (found.epsilon, found.clip_obs) == (1e-5, 3.0)


def with_type(content: bytes, kind: bytes) -> bytes:
    assert b"\x02f8" in content
    return content.replace(b"\x02f8", b"\x02" + kind)


DAMAGES = {
    # The file's bytes as pointers to objects: NumPy would follow them.
    "objects": (lambda content: with_type(content, b"O8"), "array of the type 'O8'"),
    "void": (lambda content: with_type(content, b"V8"), "array of the type 'V8'"),
    "dates": (lambda content: with_type(content, b"M8"), "array of the type 'M8'"),
    "more numbers than bytes": (lambda content: with_type(content, b"c8"), "array of the type 'c8'"),
    "fewer bytes than numbers": (lambda content: with_type(content, b"f4"), "whose shape asks for"),
    # 34 GB, for the memo of a C unpickler
    "a memo of 2^31 entries": (lambda content: b"\x80\x02Nr\xff\xff\xff\x7f.", "cannot be used"),
    "a string of 2^62 bytes": (lambda content: b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b".", "cannot be used"),
    # The hash of t = (t, t), 200 levels deep, never ends.
    "a key without end": (lambda content: b"\x80\x04})" + b"2\x86" * 200 + b"K\x01s.", "key that is no text or number"),
    "a million opcodes": (lambda content: b"\x80\x04" + b"N0" * 500_000 + b"N.", "more than the 500,000"),
    "an extension": (lambda content: b"\x80\x04\x82\x01.", "opcode EXT1"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_no_array_of_numbers_is_refused(name, env, tmp_path):
    damage, message = DAMAGES[name]
    path = tmp_path / "vecnormalize.pkl"
    path.write_bytes(damage(pickle.dumps(env, 4)))
    with pytest.raises(AgentError, match=message):
        read_normalization(path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epsilon", 0.0, "epsilon is 0, not a number above 0"),
        ("epsilon", float("nan"), "epsilon is nan"),
        ("clip_obs", -1.0, "clip_obs is -1, not a number above 0"),
        ("clip_obs", "10", "cannot be used"),
        ("norm_obs_keys", "vector", "cannot be used|statistics"),
    ],
)
def test_statistics_mean_something(name, value, message, env, tmp_path):
    if name == "norm_obs_keys":
        env.obs_rms = {"vector": env.obs_rms}
    setattr(env, name, value)
    (tmp_path / "vecnormalize.pkl").write_bytes(pickle.dumps(env))
    with pytest.raises(AgentError, match=message):
        read_normalization(tmp_path / "vecnormalize.pkl")


def test_a_variance_is_not_negative(env, tmp_path):
    env.obs_rms.var[2] = -1e-3
    env.save(tmp_path / "vecnormalize.pkl")
    with pytest.raises(AgentError, match=r"a variance is -0.001, which is below 0"):
        read_normalization(tmp_path / "vecnormalize.pkl")
