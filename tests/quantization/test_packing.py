"""Packed weights, and the size of what acts."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3 import A2C
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from sb3_distill import load_teacher
from sb3_distill.base.students import student_model
from sb3_distill.export.post_training import quantize_agent
from sb3_distill.networks.actor_critic_policies import actor_modules
from sb3_distill.quantization.layers import quantized_layers, set_blend
from sb3_distill.quantization.packing import pack_bits, pack_layers, unpack_bits
from tests.qpd.students import BITS, SMALL_STUDENTS, make

pytestmark = SMALL_STUDENTS


@given(
    bits=st.integers(1, 8),
    values=st.lists(st.integers(0, 255), min_size=1, max_size=50),
)
def test_packing_is_dense_and_reversible(bits, values):
    integers = np.array(values) % 2**bits
    data = pack_bits(integers, bits)
    assert len(data) == -(-len(values) * bits // 8)
    assert np.array_equal(unpack_bits(data, bits, len(values)), integers)


def test_stored_bytes_are_counted_by_hand(ppo_teacher):
    model = make(ppo_teacher, **BITS)
    set_blend(model.policy, 1.0)
    # 4 x 8 weights of 5 bits, 8 x 2 of 6 bits; float32: a step size and a bias per output, a step size per
    # entry of the observation and one for the second layer's input
    assert model.stored_bytes() == 32 * 5 // 8 + 16 * 6 // 8 + 4 * (8 + 2) + 4 * (8 + 2) + 4 * (4 + 1)
    assert make(ppo_teacher).stored_bytes() == 4 * (4 * 8 + 8 + 8 * 2 + 2)


def test_packed_weights_are_what_the_layers_compute_with(ppo_teacher):
    model = make(ppo_teacher, **BITS).learn(300)
    set_blend(model.policy, 1.0)
    actor = nn.ModuleList(actor_modules(model.policy))
    parts = dict(pack_layers(actor))
    for index, layer in enumerate(quantized_layers(actor)):
        quantizer = layer.weight_quantizer
        integers = unpack_bits(parts[f"{index}.weight"], int(quantizer.bits), layer.weight.numel())
        steps = np.frombuffer(parts[f"{index}.weight_step"], dtype=np.float32)
        rebuilt = (integers + quantizer.levels()[0]).reshape(layer.weight.shape) * np.abs(steps)[:, None]
        if index == 0:
            # Each entry has a step of its own.
            rebuilt = rebuilt / np.frombuffer(parts["0.input_step"], dtype=np.float32)
        assert np.allclose(rebuilt, layer.quantized_weight().detach().numpy(), rtol=1e-4)


def test_sizes_are_those_of_the_actor_alone(ppo_teacher):
    """A teacher, a student of full precision and a quantized one: weights and biases of what acts."""
    teacher = load_teacher(ppo_teacher)
    n_parameters = 4 * 64 + 64 + 64 * 64 + 64 + 64 * 2 + 2
    assert (teacher.n_parameters, teacher.n_bytes) == (n_parameters, 4 * n_parameters) == (4610, 18_440)
    students = [load_teacher(make(ppo_teacher, **bits)) for bits in ({}, BITS)]
    assert {student.n_parameters for student in students} == {4 * 8 + 8 + 8 * 2 + 2}
    quantized = quantize_agent(students[0], 4, 4)
    assert quantized.n_parameters == students[0].n_parameters
    # Half a byte for each weight; a bias and a step size per output, a step size per input and for the second layer's
    assert quantized.n_bytes == (4 * 8 + 8 * 2) // 2 + 4 * 2 * (8 + 2) + 4 * (4 + 1)


def test_a_mean_frame_is_stored():
    frames = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    sizes = []
    for standardize in ("scalar", "frame"):
        kwargs = {"features_extractor_kwargs": {"standardize": standardize}}
        student = student_model("Net5Policy", kwargs, frames, spaces.Discrete(6), "cpu")
        sizes.append(load_teacher(student, device="cpu").n_bytes)
    assert sizes[1] - sizes[0] == 4 * 84 * 84


def test_the_statistics_of_vec_normalize_are_stored(ppo_teacher):
    env = VecNormalize(make_vec_env("CartPole-v1"))
    model = make(ppo_teacher, env, **BITS)
    set_blend(model.policy, 1.0)
    packed = sum(len(data) for _, data in pack_layers(nn.ModuleList(actor_modules(model.policy))))
    # A mean and a scale for each entry of the observation
    assert model.stored_bytes() == load_teacher(model).n_bytes == packed + 4 * 2 * 4
    full = make(ppo_teacher, env)
    assert full.stored_bytes() == load_teacher(full).n_bytes == 4 * (4 * 8 + 8 + 8 * 2 + 2) + 4 * 2 * 4
    quantized = quantize_agent(full, 4, 4, n_observations=20)
    assert quantized.n_bytes == (4 * 8 + 8 * 2) // 2 + 4 * 2 * (8 + 2) + 4 * (4 + 1) + 4 * 2 * 4
    env.norm_obs = False
    assert make(ppo_teacher, env).stored_bytes() == 4 * (4 * 8 + 8 + 8 * 2 + 2)


def test_of_a_dict_the_normalized_keys_are_stored():
    class Sensors(gym.Env):
        observation_space = spaces.Dict({"a": spaces.Box(-1, 1, (2, 3)), "b": spaces.Box(-1, 1, (5,))})
        action_space = spaces.Discrete(2)

    model = A2C("MultiInputPolicy", VecNormalize(DummyVecEnv([Sensors]), norm_obs_keys=["a"]), device="cpu")
    agent = load_teacher(model)
    assert agent.n_bytes == 4 * agent.n_parameters + 4 * 2 * 6
