"""``policy.c`` against ``IntegerPolicy``: the same integers."""

import ctypes
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from sb3_distill.agents.files import AgentError
from sb3_distill.export.c.build import BuildError, CPlayer, deepest_stack, find_compiler, measure, run_tool
from sb3_distill.export.c.cortex import TARGETS, measure_cortex, missing_tools
from sb3_distill.export.c.source import CSource, pack_weight
from sb3_distill.export.integer_policy import Inputs, IntegerPolicy, Layer
from sb3_distill.export.integers import integer_policy
from sb3_distill.quantization.packing import unpack_bits
from tests.export.integers import AGENTS, observations_of, quantize_randomly, student, vector_agent

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="no C compiler (cc, gcc, clang)")
needs_gpp = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
needs_cortex = pytest.mark.skipif(bool(missing_tools()), reason=f"not installed: {', '.join(missing_tools())}")
STRICT = ("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
# Names of agents whose observations are stacked, with the number
STACKED = {"frames": 4, "few bits of frames": 2, "bytes": 3, "relu": 3, "continuous": 3}


def write(folder: Path, policy: IntegerPolicy, stack: int, observations: np.ndarray) -> CSource:
    source = CSource(policy, "a test /* of a title */", stack, "agent")
    for name, content in source.files(observations).items():
        (folder / name).write_bytes(content)
    return source


def expected(policy: IntegerPolicy, observations: np.ndarray) -> np.ndarray:
    actions, outputs = policy.predict(observations)
    return actions if policy.action_shape is None else outputs


def special_observations(space: Any) -> np.ndarray:
    """What sensors should not say."""
    odd = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, 3e38, -1e30, 0.5, 1e-3], np.float32)
    return np.resize(odd, (len(odd) + 1, *space.shape))


@needs_compiler
@pytest.mark.parametrize(("name", "stack"), [*((name, 1) for name in AGENTS), *STACKED.items()])
def test_c_computes_the_same_integers(name, stack, tmp_path: Path):
    agent = AGENTS[name]()
    policy = integer_policy(agent)
    observations = observations_of(agent.observation_space, 200)
    if agent.observation_space.dtype == np.float32:
        observations = np.concatenate([special_observations(agent.observation_space), observations])
    write(tmp_path, policy, stack, observations)
    player = CPlayer(tmp_path, policy, stack)
    actions = player.act(observations)
    assert np.array_equal(actions, expected(policy, observations)) and len(np.unique(actions, axis=0)) > 1
    assert policy.action_shape is None or np.ptp(actions.astype(int)) > 1_000


@needs_compiler
@needs_gpp
@pytest.mark.parametrize(
    ("name", "stack"),
    [
        ("tanh", 1),
        ("tanh of few bits", 1),
        ("few bits", 1),
        ("one layer", 1),
        ("frames", 4),
        ("max-pool", 1),
        ("squashed", 1),
        ("continuous", 3),
    ],
)
def test_it_compiles_without_warnings_and_runs_clean(name, stack, tmp_path: Path):
    agent = AGENTS[name]()
    write(tmp_path, integer_policy(agent), stack, observations_of(agent.observation_space, 30))
    assert [line for line in (tmp_path / "policy.c").read_text().split("\n") if "#include" in line] == [
        '#include "policy.h"'
    ]
    for command in (("gcc", "-std=c99"), ("g++", "-std=c++11", "-x", "c++")):
        run_tool(
            *command, *STRICT, *SANITIZERS, "-O1", "policy.c", "policy_test.c", "-o", "policy_test", folder=tmp_path
        )
        assert " 0 differences in" in f" {run_tool('./policy_test', folder=tmp_path)}"


@needs_compiler
def test_the_test_finds_another_action(tmp_path: Path):
    agent = vector_agent()
    observations = observations_of(agent.observation_space, 30)
    write(tmp_path, integer_policy(agent), 1, observations)
    test = tmp_path / "policy_test.c"
    head, actions = test.read_text().split("actions[COUNT] = {\n")
    test.write_text(f"{head}actions[COUNT] = {{\n    9,{actions.split(',', 1)[1]}")
    run_tool("gcc", "policy.c", "policy_test.c", "-o", "policy_test", folder=tmp_path)
    with pytest.raises(BuildError, match="1 differences in 30 observations"):
        run_tool("./policy_test", folder=tmp_path)


@needs_compiler
@pytest.mark.parametrize("stack", [1, 3])
def test_levels_from_a_sensor(stack, tmp_path: Path):
    """Those of a whole stack, where the policy sees one."""
    agent = vector_agent()
    policy = integer_policy(agent)
    write(tmp_path, policy, stack, observations_of(agent.observation_space, 1))
    library = CPlayer(tmp_path, policy, stack)._library
    rng = np.random.default_rng(0)
    for levels in rng.integers(-200, 201, (100, 6)).astype(np.int16):
        action, outputs = library.policy_act_q(ctypes.c_void_p(levels.ctypes.data)), policy.outputs(levels[None])[0]
        assert action == outputs.argmax()
        others = (np.arange(policy.n_actions) != action).astype(np.uint8)
        masked = library.policy_act_q_masked(*(ctypes.c_void_p(part.ctypes.data) for part in (levels, others)))
        assert masked == np.where(others, outputs, -np.inf).argmax()
    none = np.zeros(policy.n_actions, np.uint8)
    assert library.policy_act_q_masked(*(ctypes.c_void_p(part.ctypes.data) for part in (levels, none))) == -1
    for observation in np.concatenate(
        [special_observations(agent.observation_space), observations_of(agent.observation_space)]
    ):
        levels = np.zeros(6, np.int16)
        library.policy_levels(ctypes.c_void_p(observation.ctypes.data), ctypes.c_void_p(levels.ctypes.data))
        assert levels.tolist() == policy.inputs.levels(observation[None])[0].tolist()


@needs_compiler
@pytest.mark.parametrize(("name", "stack"), [("relu", 1), ("relu", 3), ("frames", 1), ("frames", 4)])
def test_masks_leave_the_best_action_that_is_allowed(name, stack, tmp_path: Path):
    agent = AGENTS[name]()
    policy = integer_policy(agent)
    observations = observations_of(agent.observation_space, 60)
    write(tmp_path, policy, stack, observations)
    player = CPlayer(tmp_path, policy, stack)
    masks = np.random.default_rng(0).random((len(observations), policy.n_actions)) < 0.5
    masks[masks.sum(axis=1) == 0] = True
    best = np.where(masks, policy.predict(observations)[1], -np.inf).argmax(axis=1)
    assert (best != policy.predict(observations)[0]).any()
    parts = np.ascontiguousarray(observations.reshape(len(observations), stack, -1))
    for seen, mask, expected_action in zip(parts, masks, best, strict=True):
        player.reset()
        for part in seen[:-1]:
            player.call(part)
        assert player.call(seen[-1], mask) == expected_action
    if stack == 1:
        assert np.array_equal(player.predict(observations, action_masks=masks)[0], best)
        assert player.call(parts[0, 0], np.zeros(policy.n_actions)) == -1


@needs_compiler
def test_continuous_actions_become_floats(tmp_path: Path):
    agent = AGENTS["continuous"]()
    policy = integer_policy(agent)
    observations = observations_of(agent.observation_space, 20)
    write(tmp_path, policy, 1, observations)
    player = CPlayer(tmp_path, policy, 1)
    convert = player._library.policy_to_float
    convert.restype, convert.argtypes = ctypes.c_float, [ctypes.c_uint32, ctypes.c_int16]
    actions = [convert(0, int(value)) for value in player.act(observations)[:, 0]]
    assert np.allclose(actions, policy.predict(observations)[0][:, 0], rtol=1e-6)
    assert np.allclose([convert(0, -32767), convert(0, 32767)], [-2, 2])


@needs_compiler
def test_the_ring_holds_the_latest_observations_and_is_emptied(tmp_path: Path):
    agent = AGENTS["frames"]()
    policy = integer_policy(agent)
    frames = observations_of(spaces.Box(0, 255, (36, 36), np.uint8), 9)
    write(tmp_path, policy, 4, observations_of(agent.observation_space, 1))
    player = CPlayer(tmp_path, policy, 4)
    padded = np.concatenate([np.zeros((3, 36, 36), np.uint8), frames])
    stacks = np.stack([padded[index : index + 4] for index in range(9)])
    for _ in range(2):
        starts = np.arange(9) == 0
        actions = [
            player.predict(stack[None], episode_start=starts[index : index + 1])[0][0]
            for index, stack in enumerate(stacks)
        ]
        assert actions == policy.predict(stacks)[0].tolist()


def test_observations_whose_stack_cannot_be_told_apart_are_named():
    with pytest.raises(AgentError, match=r"agent cannot be exported as C: its observations \(6, 5, 3\) are 3 stacked"):
        CSource(integer_policy(AGENTS["grid"]()), "title", 3, "agent")
    grid = spaces.Box(-np.inf, np.inf, (6, 5, 3), np.float32)
    agent = quantize_randomly(student("GridCnnPolicy", grid, {"features_extractor_kwargs": {"channels": 4}}))
    with pytest.raises(AgentError, match=r"are stacked floating-point images. Use bytes"):
        CSource(integer_policy(agent), "title", 3, "agent")


def test_names_of_strangers_stay_in_the_comment():
    hostile = "ppo *\\\n/ int evil; /\\\n* ??/\n*/ on CartPole-v1"
    for content in CSource(integer_policy(vector_agent()), hostile, 1, "agent").code().values():
        title = content.decode().splitlines()[0]
        assert title.startswith("/* ppo ") and title.endswith(" on CartPole-v1") and not set(title[2:]) & set("*\\?;")


def test_same_agent_same_files():
    first, second = (
        CSource(integer_policy(vector_agent()), "title", 1, "agent").files(
            observations_of(vector_agent().observation_space, 9)
        )
        for _ in range(2)
    )
    assert first == second
    assert b"level" in first["README.md"] and b"| 5 | 0 |" in first["README.md"]


def test_the_order_of_a_matrix_is_in_the_header():
    agent = quantize_randomly(student("MlpPolicy", spaces.Box(-1, 1, (3, 2)), {"net_arch": [4]}))
    header = CSource(integer_policy(agent), "title", 1, "agent").code()["policy.h"].decode()
    assert "an observation in the units of the environment, in the order 3 x 2.\n" in header


def test_constants_are_counted():
    policy = integer_policy(vector_agent(weights=(4, 2, 3), inputs=(5, 3, 2)))
    packed = [pack_weight(layer) for layer in policy.layers]
    assert [len(part) for part in packed] == [8 * 6 * 4 // 8, 5 * 8 * 2 // 8, 8]
    for layer, part in zip(policy.layers, packed, strict=True):
        unpacked = unpack_bits(part.tobytes(), layer.bits, layer.weight.size) - (2 ** (layer.bits - 1) - 1)
        assert np.array_equal(unpacked, layer.weight.ravel())
    # Of each output bias, multiplier and shift; of each entry its step
    assert CSource(policy, "title", 1, "agent").n_bytes == 24 + 10 + 8 + (8 + 5 + 4) * 7 + 6 * 4


@st.composite
def policies(draw: st.DrawFn) -> IntegerPolicy:
    """Small policies of random integers, whose sums stay in their bounds."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    is_image, n_actions = draw(st.booleans()), draw(st.integers(1, 4))
    continuous, squashes, wide = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    channels, height, width = (draw(st.integers(1, 3)), 7, 6) if is_image else (1, 1, draw(st.integers(1, 6)))
    shape = (channels, height, width) if is_image else (width,)
    activations = st.sampled_from(["", "tanh", "sigmoid", "stairs"])
    layers: list[Layer] = []

    def add(
        outputs: int, kernel: tuple[int, int], stride: tuple[int, int], inner: tuple[int, int, int], last: bool
    ) -> int:
        bits = draw(st.integers(2, 8))
        most, levels = 2 ** (bits - 1) - 1, draw(st.integers(2, 8))
        activation = ("tanh" if squashes and continuous else "") if last else draw(activations)
        low = draw(st.sampled_from([0, -(2 ** (levels - 1)) + 1]))
        limit = 32767 if continuous else 2**30
        stairs = activation == "stairs"
        borders = np.sort(rng.integers(-32767, 32768, draw(st.integers(0, 60)))).astype(np.int16) if stairs else None
        layers.append(
            Layer(
                weight=rng.integers(-most, most + 1, (outputs, inner[0], *kernel)).astype(np.int8),
                bits=bits,
                scale=2 ** draw(st.integers(0, 4)),
                bias=rng.integers(-(10**6), 10**6, outputs),
                multiplier=rng.integers(1, 2**16, outputs).astype(np.uint16),
                shift=rng.integers(1, 30, outputs).astype(np.uint8),
                low=-limit if last else 0 if stairs else low,
                high=limit if last else low + 2**levels - 2,
                zero=0 if last or stairs else low,
                shape=inner,
                stride=stride,
                activation=activation,
                after=(draw(st.integers(1, 2**16 - 1)), draw(st.integers(8, 30)))
                if activation in ("tanh", "sigmoid") and not last
                else None,
                borders=borders,
                pool=not last and is_image and draw(st.booleans()),
            )
        )
        return layers[-1].check(int(np.prod(inner)))

    size = width
    if is_image:
        kernel = draw(st.integers(1, 4)), draw(st.integers(1, 4))
        size = add(draw(st.integers(1, 3)), kernel, (draw(st.integers(1, 3)), draw(st.integers(1, 3))), shape, False)
    for _ in range(draw(st.integers(0, 2))):
        size = add(draw(st.integers(1, 5)), (1, size), (1, 1), (1, 1, size), False)
    # Several outputs of one action are added up.
    add(n_actions * (1 if continuous else draw(st.integers(1, 2))), (1, size), (1, 1), (1, 1, size), True)
    inputs = None
    if not is_image and draw(st.booleans()):
        most = rng.integers(1, 200, width).astype(np.int16)
        steps = (rng.random(width) + 0.01).astype(np.float32)
        inputs = Inputs(rng.standard_normal(width).astype(np.float32), steps, -most, most)
    ones = np.ones(n_actions, np.float32)
    bounds = {"action_shape": (n_actions,), "centre": ones, "half": ones} if continuous else {}
    return IntegerPolicy(shape, inputs, tuple(layers), wide, n_actions, **bounds)


@needs_compiler
@settings(max_examples=15, deadline=None, derandomize=True, phases=[Phase.generate])
@given(policies())
def test_random_policies(tmp_path_factory, policy):
    folder = tmp_path_factory.mktemp("random")
    dtype = np.uint8 if policy.inputs is None else np.float32
    observations = observations_of(spaces.Box(0, 255, policy.shape, dtype), 30)
    write(folder, policy, 1, observations)
    assert IntegerPolicy.load(folder / "policy.npz").to_bytes() == policy.to_bytes()
    assert np.array_equal(CPlayer(folder, policy, 1).act(observations), expected(policy, observations))


@needs_compiler
@pytest.mark.parametrize(("high", "value_type"), [(2**15 - 1, "int16_t"), (2**15, "int32_t")])
def test_values_take_the_smallest_type_that_holds_them(high, value_type, tmp_path: Path):
    policy = integer_policy(vector_agent())
    first = policy.layers[0]
    # Some of its values reach the highest one.
    large = replace(first, high=high, zero=0, shift=np.full_like(first.shift, 10), multiplier=first.multiplier | 2**15)
    policy = replace(policy, layers=(large, *policy.layers[1:]), wide=True)
    observations = observations_of(vector_agent().observation_space, 50)
    assert large(policy.inputs.levels(observations)).max() == high
    source = write(tmp_path, policy, 1, observations)
    assert f"typedef {value_type} value_t;" in (tmp_path / "policy.c").read_text()
    assert source.value_range == (-127, high)
    assert np.array_equal(CPlayer(tmp_path, policy, 1).act(observations), expected(policy, observations))
    run_tool(find_compiler(), *STRICT, *SANITIZERS, "policy.c", "policy_test.c", "-o", "policy_test", folder=tmp_path)
    assert " 0 differences in" in f" {run_tool('./policy_test', folder=tmp_path)}"


def test_values_beside_bytes_are_bytes_or_refused():
    policy = integer_policy(AGENTS["frames"]())
    assert CSource(policy, "title", 4, "agent").value_type == "uint8_t"
    large = replace(policy, layers=(replace(policy.layers[0], high=256), *policy.layers[1:]))
    with pytest.raises(AgentError, match="a layer gives integers from 0 to 256, and bytes hold 0 to 255"):
        CSource(large, "title", 4, "agent")


def test_deepest_stack_of_a_graph():
    graph = r"""
node: { title: "policy.c:add_up" label: "add_up\npolicy.c:1:1\n40 bytes (static)\n0 dynamic objects" }
node: { title: "policy.c:decide" label: "decide\npolicy.c:2:1\n100 bytes (static)\n0 dynamic objects" }
node: { title: "policy_act" label: "policy_act\npolicy.c:3:1\n8 bytes (static)\n0 dynamic objects" }
node: { title: "memset" label: "memset\n<built-in>" shape : ellipse }
edge: { sourcename: "policy_act" targetname: "policy.c:decide" label: "policy.c:3:9" }
edge: { sourcename: "policy.c:decide" targetname: "policy.c:add_up" label: "policy.c:2:9" }
edge: { sourcename: "policy.c:decide" targetname: "memset" }
"""
    assert deepest_stack(graph) == 148 and deepest_stack("") is None


@needs_compiler
def test_footprint_on_this_machine(tmp_path: Path):
    agent = AGENTS["frames"]()
    source = write(tmp_path, integer_policy(agent), 4, observations_of(agent.observation_space, 1))
    footprint = measure(tmp_path, "here", find_compiler(), "size")
    # The ring, and the place of its oldest observation
    assert footprint.state == 4 * 36 * 36 + 4
    assert source.n_bytes <= footprint.constants < source.n_bytes + 64 * 6 and 300 < footprint.code < 5_000
    assert footprint.stack is None or footprint.stack > 8 * 8 * 8 + 5 * 16


@needs_cortex
@pytest.mark.parametrize("target", TARGETS)
def test_cortex(target, tmp_path: Path):
    agent = vector_agent()
    source = write(tmp_path, integer_policy(agent), 1, observations_of(agent.observation_space, 30))
    footprint = measure_cortex(tmp_path, target, discrete=True)
    assert source.n_bytes <= footprint.constants < source.n_bytes + 64 * 3 and footprint.state == 0
    # Some instructions for each product, and for floating-point numbers without hardware
    n_products = sum(layer.weight.size for layer in integer_policy(agent).layers)
    assert n_products * 3 < footprint.instructions < n_products * 200


@needs_cortex
def test_cortex_runs_the_test(tmp_path: Path):
    agent = vector_agent()
    write(tmp_path, integer_policy(agent), 1, observations_of(agent.observation_space, 3))
    test = tmp_path / "policy_test.c"
    test.write_text(test.read_text().replace("actions[COUNT] = {\n    ", "actions[COUNT] = {\n    1+"))
    with pytest.raises(BuildError, match="1 differences in 3 observations"):
        measure_cortex(tmp_path, "cortex-m3", discrete=True)
