"""Writes an integer policy as C."""

import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from sb3_distill.agents.files import AgentError
from sb3_distill.export import integer_policy
from sb3_distill.export.integer_policy import FULL, TANH, IntegerPolicy, Layer
from sb3_distill.quantization.packing import pack_bits

# Numbers that the recorded observations of policy_test.c have together
MAX_TEST_NUMBERS = 100_000
SIZES = {"float": 4, "uint8_t": 1, "uint16_t": 2, "int16_t": 2, "int32_t": 4, "int64_t": 8}
ACTIVATIONS = {"": 0, "stairs": 0, "tanh": 1, "sigmoid": 2}
# Literals; no 64-bit number has a literal of its own type in C99 before 2^31
_FORMATS = {"float": lambda number: _as_float(number), "int64_t": lambda number: f"INT64_C({number})"}


def _as_float(number: float) -> str:
    text = f"{np.float32(number):.9g}"
    return f"{text}{'' if set(text) & set('.e') else '.0'}f"


def _lines(numbers: Iterable[str]) -> str:
    """Numbers of an array, in lines."""
    return textwrap.fill(", ".join(numbers), 110, initial_indent="    ", subsequent_indent="    ")


@dataclass(frozen=True)
class _Array:
    """A constant of policy.c."""

    name: str
    type: str
    values: Any
    note: str = ""

    @property
    def text(self) -> str:
        write = _FORMATS.get(self.type, str)
        return _lines(write(value) for value in self.values)

    @property
    def n_bytes(self) -> int:
        return SIZES[self.type] * len(self.values)


def pack_weight(layer: Layer) -> np.ndarray:
    """
    :param layer: a layer of a policy
    :return: the bytes of its weights, which are packed without gaps
    """
    integers = layer.weight.astype(np.int64) + (2 ** (layer.bits - 1) - 1)
    return np.frombuffer(pack_bits(integers, layer.bits), np.uint8)


def _in_planes(policy: IntegerPolicy, stack: int, source: str) -> IntegerPolicy:
    """A policy on stacked bytes, in whose first layer an observation of the stack begins with a channel."""
    first, size = policy.layers[0], int(np.prod(policy.shape))
    if len(policy.shape) == 1:
        weight = first.weight.reshape(len(first.weight), stack, 1, -1)
        first = replace(first, weight=weight, shape=(stack, 1, size // stack))
    elif first.shape != policy.shape or policy.shape[0] % stack:
        raise AgentError(
            f"{source} cannot be exported as C: its observations {policy.shape} are {stack} stacked ones with the "
            "channels last. Use channels-first images, or do not stack."
        )
    return replace(policy, layers=(first, *policy.layers[1:]))


def c_title(algo: str, env_id: str, sha256: str) -> str:
    """
    :param algo: the agent's algorithm
    :param env_id: the environment that checked the files
    :param sha256: the agent's hash
    :return: the first line of the files
    """
    return f"{algo} on {env_id}, agent {sha256[:12]}"


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9 ,.:/+_-]", "_", text)


def _range_of(layer: Layer) -> tuple[int, int]:
    """What a hidden layer can give."""
    if layer.borders is not None:
        return layer.low, layer.low + len(layer.borders)
    if layer.activation and layer.after is None:
        return -FULL - layer.zero, 2 * FULL - layer.zero
    return layer.low - layer.zero, layer.high - layer.zero


class CSource:
    """
    The files of an integer policy.

    :param policy: the policy
    :param title: what it is, in one line
    :param stack: number of observations that it sees at once
    :param source: the agent's name, for messages
    :param parts: see ``ObservationFormat``
    :raises AgentError: it cannot be written as C
    """

    def __init__(
        self, policy: IntegerPolicy, title: str, stack: int, source: str, parts: Mapping[str, int] | None = None
    ) -> None:
        self.parts = [(_plain(key), size) for key, size in (parts or {}).items()]
        self.stack, self.inputs = stack, policy.inputs
        # Of floats the ring is undone when they are converted
        self.has_ring = stack > 1 and self.inputs is None
        if stack > 1 and len(policy.shape) != 1 and self.inputs is not None:
            raise AgentError(
                f"{source} cannot be exported as C: its observations {policy.shape} are stacked floating-point images. "
                "Use bytes."
            )
        self.policy = _in_planes(policy, stack, source) if self.has_ring else policy
        self.arrays: list[_Array] = []
        sizes = [size for layer in self.policy.layers for size in (len(layer.weight), *layer.weight[0].shape)]
        if max(*sizes, *policy.shape) > 2**16 - 1:
            raise AgentError(f"{source} cannot be exported as C: a layer has more than 65,535 inputs or outputs.")
        self._collect_arrays()
        self.value_range, self.value_type = self._find_values(source)
        # It stands in a comment, and names in it can be a stranger's: nothing that could end the comment stays.
        self.values = self._values(_plain(title))

    @property
    def n_bytes(self) -> int:
        """Size of all constants that the policy needs: weights, biases, multipliers, steps, tables."""
        return sum(array.n_bytes for array in self.arrays)

    def _find_values(self, source: str) -> tuple[tuple[int, int], str]:
        """What layers take and give lies between these, and the smallest type that holds all of it."""
        ranges = [_range_of(layer) for layer in self.policy.layers[:-1]]
        ranges.append((0, 255) if self.inputs is None else (int(self.inputs.low.min()), int(self.inputs.high.max())))
        low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
        if self.inputs is not None:
            return (low, high), "int16_t" if low >= -(2**15) and high < 2**15 else "int32_t"
        # They stand beside the bytes of the observation.
        if low < 0 or high > 255:
            raise AgentError(
                f"{source} cannot be exported as C: a layer gives integers from {low} to {high}, and bytes hold 0 to "
                "255. Take at most 8 bits."
            )
        return (low, high), "uint8_t"

    def _add(self, name: str, kind: str, values: Any, note: str = "") -> None:
        self.arrays.append(_Array(name, kind, np.asarray(values).reshape(-1).tolist(), note))

    def _collect_arrays(self) -> None:
        policy, inputs = self.policy, self.inputs
        for index, layer in enumerate(policy.layers):
            of = f"Layer {index + 1}: {' x '.join(map(str, layer.weight.shape))} weights of {layer.bits} bits"
            self._add(f"weights_{index}", "uint8_t", pack_weight(layer), of)
            self._add(f"bias_{index}", "int64_t" if policy.wide else "int32_t", layer.bias)
            self._add(f"multiplier_{index}", "uint16_t", layer.multiplier)
            self._add(f"shift_{index}", "uint8_t", layer.shift)
            if layer.borders is not None and len(layer.borders):
                self._add(f"borders_{index}", "int16_t", layer.borders)
        if inputs is not None:
            self._add("steps", "float", inputs.step, "How observations become levels")
            if inputs.offset.any():
                self._add("offsets", "float", inputs.offset)
            for name, levels in (("lowest", inputs.low), ("highest", inputs.high)):
                if len(levels) > 1:
                    self._add(name, "int16_t", levels)
        if self.has_tables:
            self._add("tanh_table", "uint16_t", TANH, "32767 tanh(k / 16)")
        if policy.centre is not None and policy.half is not None:
            self._add(
                "centres", "float", policy.centre, "The middle between an action's bounds, and half their distance"
            )
            self._add("halves", "float", policy.half)

    @property
    def has_tables(self) -> bool:
        """Whether a layer has an activation that is looked up."""
        return any(layer.activation in ("tanh", "sigmoid") for layer in self.policy.layers)

    @property
    def has_stairs(self) -> bool:
        """Whether a layer has borders of levels."""
        return any(layer.borders is not None for layer in self.policy.layers)

    def _describe_layer(self, index: int, layer: Layer) -> str:
        _, kernel_height, kernel_width = layer.weight.shape[1:]
        channels, height, width = layer.shape
        rows, columns = (height - kernel_height) // layer.stride[0] + 1, (width - kernel_width) // layer.stride[1] + 1
        names = [f"{name}_{index}" for name in ("weights", "bias", "multiplier", "shift")]
        if self.has_stairs:
            n_borders = 0 if layer.borders is None else len(layer.borders)
            names += [f"borders_{index}" if n_borders else "0", str(n_borders), str(int(layer.borders is not None))]
        table = [*(layer.after or (0, 0)), ACTIVATIONS[layer.activation]] if self.has_tables else []
        shape = [len(layer.weight), rows, columns, channels, height, width, kernel_height, kernel_width, *layer.stride]
        numbers = [layer.low, layer.high, layer.zero, *table, layer.scale, layer.bits, int(layer.pool), *shape]
        return ", ".join([*names, *map(str, numbers)])

    def _calls(self) -> tuple[list[dict[str, Any]], list[str]]:
        """Two buffers, and the layers that write into them in turn."""
        sizes, calls, values = [0, 0], [], "values"
        for index, layer in enumerate(self.policy.layers):
            first = (", first" if index == 0 else ", 0") if self.has_ring else ""
            if index == len(self.policy.layers) - 1:
                calls.append(f"run_last(&layers[{index}], {values}{first}, outputs)")
                break
            _, height, width = layer.shape
            kernel = layer.weight.shape[2:]
            places = (height - kernel[0]) // layer.stride[0] + 1, (width - kernel[1]) // layer.stride[1] + 1
            size = len(layer.weight) * (1 if layer.pool else places[0] * places[1])
            sizes[index % 2] = max(sizes[index % 2], size)
            results = "ab"[index % 2]
            calls.append(f"run_hidden(&layers[{index}], {values}{first}, {results})")
            values = results
        return [{"name": name, "size": size} for name, size in zip("ab", sizes, strict=True) if size], calls

    def _values(self, title: str) -> dict[str, Any]:
        """What the templates need."""
        policy, inputs = self.policy, self.inputs
        discrete = policy.action_shape is None
        one = (policy.shape[0] // self.stack, *policy.shape[1:])
        buffers, calls = self._calls()
        rows = [layer.weight[0].size for layer in policy.layers]
        names = {array.name for array in self.arrays}

        def of_entry(name: str, single: str) -> str:
            return f"{name}[entry]" if name in names else single

        values: dict[str, Any] = {
            "title": title,
            "size": int(np.prod(policy.shape)) // self.stack,
            "stack": self.stack,
            "ring": self.has_ring,
            "planes": policy.layers[0].shape[0] // self.stack,
            "discrete": discrete,
            "n_actions": policy.n_actions,
            "floats": inputs is not None,
            "n_levels": "POLICY_STACK * POLICY_OBSERVATION_SIZE" if self.stack > 1 else "POLICY_OBSERVATION_SIZE",
            "value_type": self.value_type,
            "value_low": self.value_range[0],
            "value_high": self.value_range[1],
            "wide": policy.wide,
            "whole_bytes": any(layer.bits == 8 for layer in policy.layers),
            "tables": self.has_tables,
            "stairs": self.has_stairs,
            "pools": any(layer.pool for layer in policy.layers),
            "n_layers": len(policy.layers),
            "longest_hidden_row": max(rows[:-1], default=0),
            "last_row": rows[-1],
            "buffers": buffers,
            "calls": calls,
            "arrays": self.arrays,
            "layers": [self._describe_layer(index, layer) for index, layer in enumerate(policy.layers)],
            "returns": "int32_t" if discrete else "void",
            "act": "policy_act_masked" if discrete else "policy_act",
            "act_q": "policy_act_q_masked" if discrete else "policy_act_q",
            "out_parameter": "" if discrete else ", int16_t *action",
            "last_parameter": ", const uint8_t *allowed" if discrete else ", int16_t *action",
            "last_argument": ", allowed" if discrete else ", action",
            "first_parameter": ", uint32_t first" if self.has_ring else "",
            "first_argument": ", first" if self.has_ring else "",
            "order": f", in the order {' x '.join(map(str, one))}" if len(one) > 1 else "",
        }
        if inputs is not None:
            step = "steps[entry]" if len(inputs.step) > 1 else "steps[0]"
            offset = "offsets[entry]" if len(inputs.offset) > 1 else "offsets[0]"
            values["scaled"] = f"(value - {offset}) / {step}" if "offsets" in names else f"value / {step}"
            values["low"] = of_entry("lowest", str(inputs.low[0]))
            values["high"] = of_entry("highest", str(inputs.high[0]))
        return values

    def _readme_values(self) -> dict[str, Any]:
        policy, inputs = self.policy, self.inputs
        values: dict[str, Any] = {"n_bytes": f"{self.n_bytes:,}", "dict_parts": self.parts}
        kinds = [("weights", "weights"), ("bias", "biases"), ("multiplier", "multipliers"), ("shift", "shifts")]
        kinds += [
            ("steps", "steps"),
            ("offsets", "offsets"),
            ("tanh", "the tanh table"),
            ("borders", "borders of levels"),
        ]
        kinds += [
            ("lowest", "lowest levels"),
            ("highest", "highest levels"),
            ("centres", "centres"),
            ("halves", "halves"),
        ]
        sizes = {text: sum(a.n_bytes for a in self.arrays if a.name.startswith(name)) for name, text in kinds}
        values["parts"] = ", ".join(f"{text} {size:,}" for text, size in sizes.items() if size)
        if inputs is not None:
            parts = np.broadcast_arrays(
                inputs.offset, inputs.step, inputs.low, inputs.high, np.zeros(policy.shape).ravel()
            )
            values["level_rows"] = [
                [index, *(f"{part[index]:.9g}" for part in parts[:4])] for index in range(len(parts[0]))
            ]
        if policy.centre is not None and policy.half is not None:
            pairs = zip(policy.centre, policy.half, strict=True)
            values["action_rows"] = [[index, *(f"{part:.9g}" for part in pair)] for index, pair in enumerate(pairs)]
        return values

    def code(self) -> dict[str, bytes]:
        """
        :return: ``policy.h`` and ``policy.c``
        """
        return self._render(("policy.h", "policy.c"), self.values)

    @staticmethod
    def _render(names: Iterable[str], values: dict[str, Any]) -> dict[str, bytes]:
        environment = Environment(
            loader=PackageLoader("sb3_distill.export.c", "."),
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            undefined=StrictUndefined,
        )
        return {name: environment.get_template(f"{name}.j2").render(values).encode() for name in names}

    def files(self, observations: np.ndarray) -> dict[str, bytes]:
        """
        :param observations: recorded raw observations
        :return: the contents of all files by their names
        """
        kept = observations[: max(MAX_TEST_NUMBERS // observations[0].size, 1)].reshape(-1, observations[0].size)
        outputs = self.policy.predict(kept.reshape(-1, *self.policy.shape))
        write = _as_float if self.inputs is not None else (lambda value: str(int(value)))
        actions: list[str] = [str(action) for action in outputs[0]]
        if not self.values["discrete"]:
            actions = [f"{{{', '.join(map(str, row))}}}" for row in outputs[1].tolist()]
        values = {
            **self.values,
            **self._readme_values(),
            "count": len(kept),
            "observations": ",\n".join(f"    {{\n{_lines(map(write, row))}\n    }}" for row in kept.tolist()),
            "actions": _lines(actions),
        }
        files = self.code() | self._render(("policy_test.c", "README.md"), values)
        files["policy.npz"] = self.policy.to_bytes()
        files["integer_policy.py"] = Path(integer_policy.__file__).read_bytes()
        return files
