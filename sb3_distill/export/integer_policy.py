"""Runs an exported policy in integers; needs numpy alone, so that it can be copied to a device.

This file is the specification of ``policy.c``, which computes the same integers.
``python integer_policy.py policy.npz observation.npy`` prints the actions.
"""

import io
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# tanh(k / 16) * 32767 for k = 0 ... 128; between two entries it is interpolated
TANH = np.round(32767 * np.tanh(np.arange(129) / 16)).astype(np.int64)
# Activations are looked up at multiples of 1/4096; continuous actions go from -32767 to 32767.
TANH_STEPS, FULL = 4096, 32767
# Of these observations the sums are computed at once
_BATCH = 64


def require(holds: bool, what: str) -> None:
    """
    :param holds: whether parts of a file fit together
    :param what: these parts
    :raises ValueError: they do not
    """
    if not holds:
        raise ValueError(f"its {what} do not fit together")


def rescale(sums: np.ndarray, multiplier: Any, shift: Any, low: int, high: int) -> np.ndarray:
    """
    :param sums: integers
    :param multiplier: below 2^16
    :param shift: at least 1
    :param low: the lowest result
    :param high: the highest result
    :return: ``sums * multiplier / 2^shift``, rounded half up, within the bounds
    """
    shift = np.asarray(shift, np.int64)
    return ((sums * np.asarray(multiplier, np.int64) + (1 << (shift - 1))) >> shift).clip(low, high)


def tanh(values: np.ndarray) -> np.ndarray:
    """
    :param values: multiples of 1/4096, from -32767 to 32767
    :return: their hyperbolic tangents as multiples of 1/32767
    """
    size = np.abs(values)
    place, rest = size >> 8, size & 255
    return np.sign(values) * (TANH[place] + ((TANH[place + 1] - TANH[place]) * rest + 128 >> 8))


@dataclass(frozen=True)
class Inputs:
    """
    How floating-point observations become integers: entry ``x`` becomes ``(x - offset) / step`` in float32, rounded
    half to even, between ``low`` and ``high`` (NaN becomes 0). Arrays have one number for every entry, or one for all.

    :param offset: what is subtracted, float32
    :param step: the distance between two levels, float32
    :param low: the lowest level
    :param high: the highest level
    """

    offset: np.ndarray
    step: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def levels(self, observations: np.ndarray) -> np.ndarray:
        """
        :param observations: ``(n, entries)``
        :return: their levels
        """
        with np.errstate(over="ignore"):
            scaled = (observations.astype(np.float32) - self.offset) / self.step
        scaled = np.where(np.isnan(scaled), np.float32(0), scaled)
        return np.rint(np.clip(scaled, self.low.astype(np.float32), self.high.astype(np.float32))).astype(np.int64)


@dataclass(frozen=True)
class Layer:
    """
    A convolution, or a fully connected layer (a convolution whose kernel is as large as its input).

    Its sums are multiplied by ``scale``, ``bias`` is added, and the results are rescaled, channel by channel, and
    clamped to ``low`` and ``high``. With an activation they are rescaled to multiples of 1/4096, looked up, and
    rescaled again (``after``; without it, what is looked up is the result). Of few levels, the result is ``low`` and
    the number of ``borders`` that they reach. A ReLU is a ``low`` of 0.

    :param weight: integers ``(outputs, channels, kernel height, kernel width)``
    :param bits: number of bits of each
    :param scale: what a sum is multiplied with before the bias is added: a power of 2, so that biases can be finer
    :param bias: what is added
    :param multiplier: of each output, see ``rescale``
    :param shift: of each output
    :param low: the lowest result
    :param high: the highest result
    :param zero: what is subtracted from the result, so that those of hidden layers begin at 0
    :param shape: channels, height and width of the input
    :param stride: of the convolution, vertical and horizontal
    :param activation: "", "tanh", "sigmoid", or "stairs" for any activation with borders
    :param after: multiplier and shift behind the activation
    :param pool: whether only the largest result of each channel is kept
    :param borders: of stairs, where each level begins, as multiples of 1/4096
    """

    weight: np.ndarray
    bits: int
    scale: int
    bias: np.ndarray
    multiplier: np.ndarray
    shift: np.ndarray
    low: int
    high: int
    zero: int
    shape: tuple[int, int, int]
    stride: tuple[int, int] = (1, 1)
    activation: str = ""
    after: tuple[int, int] | None = None
    pool: bool = False
    borders: np.ndarray | None = None

    def check(self, size: int) -> int:
        """
        :param size: how many values it is given
        :return: how many it gives
        """
        outputs, channels, *kernel = self.weight.shape
        numbers = [*(self.bits, self.scale, self.low, self.high, self.zero, *self.shape, *self.stride)]
        numbers += self.after or ()
        require(all(type(number) is int for number in numbers) and min(*self.shape, *self.stride) > 0, "numbers")
        require(2 <= self.bits <= 8 and self.weight.dtype == np.int8, "bits")
        require(np.abs(self.weight.astype(int)).max() < 2 ** (self.bits - 1), "weights")
        require(self.activation in ("", "tanh", "sigmoid", "stairs") and type(self.pool) is bool, "an activation")
        require((channels, size) == (self.shape[0], math.prod(self.shape)), "inputs of a layer")
        parts = (self.bias, self.multiplier, self.shift)
        require(all(part.dtype.kind in "iu" and part.shape == (outputs,) for part in parts), "numbers of outputs")
        shifts = [*self.shift.tolist(), *(self.after or ())[1:]]
        require(all(1 <= shift <= 47 for shift in shifts), "shifts")
        multipliers = [*self.multiplier.tolist(), *(self.after or ())[:1]]
        require(all(0 <= number < 2**16 for number in multipliers), "multipliers")
        require((self.borders is not None) == (self.activation == "stairs"), "borders")
        require(self.borders is None or (self.borders.dtype == np.int16 and self.borders.ndim == 1), "borders")
        places = [
            (whole - part) // stride + 1
            for whole, part, stride in zip(self.shape[1:], kernel, self.stride, strict=True)
        ]
        require(min(places) > 0, "size of a kernel")
        return int(outputs) * (1 if self.pool else places[0] * places[1])

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """
        :param values: integers ``(n, ...)``, channels first
        :return: integers ``(n, outputs * height * width)``
        """
        images = values.reshape(len(values), *self.shape)
        windows = np.lib.stride_tricks.sliding_window_view(images, self.weight.shape[2:], axis=(2, 3))
        windows = windows[:, :, :: self.stride[0], :: self.stride[1]].transpose(0, 2, 3, 1, 4, 5)
        places = windows.shape[:3]
        # float64 holds all integers below 2^53, which no sum reaches, and is multiplied much faster than integers.
        weight = self.weight.reshape(len(self.weight), -1).astype(np.float64)
        sums = (windows.reshape(-1, weight.shape[1]).astype(np.float64) @ weight.T).astype(np.int64)
        sums = sums * self.scale + self.bias
        if self.borders is not None:
            steps = rescale(sums, self.multiplier, self.shift, -FULL, FULL)
            results = self.low + np.searchsorted(self.borders, steps, side="right")
        elif self.activation:
            results = tanh(rescale(sums, self.multiplier, self.shift, -FULL, FULL))
            if self.activation == "sigmoid":
                results = results + FULL
            if self.after is not None:
                results = rescale(results, *self.after, self.low, self.high)
        else:
            results = rescale(sums, self.multiplier, self.shift, self.low, self.high)
        results = results.reshape(*places, -1).transpose(0, 3, 1, 2) - self.zero
        return results.max(axis=(2, 3)) if self.pool else results.reshape(len(values), -1)


@dataclass(frozen=True)
class IntegerPolicy:
    """
    An exported policy that computes with integers.

    :param shape: shape of an observation
    :param inputs: how observations become integers; None: they are bytes
    :param layers: its layers
    :param wide: whether sums take 64 bits, since 32 may not hold them
    :param n_actions: number of discrete actions, or of entries of a continuous one
    :param action_shape: shape of continuous actions; None: actions are discrete
    :param centre: the middle between the bounds of each entry
    :param half: half the distance between them; the action is ``centre + output * half / 32767``
    :param output_scale: what the outputs of discrete actions count in units of the agent's logits or Q-values
    """

    shape: tuple[int, ...]
    inputs: Inputs | None
    layers: tuple[Layer, ...]
    wide: bool
    n_actions: int
    action_shape: tuple[int, ...] | None = None
    centre: np.ndarray | None = None
    half: np.ndarray | None = None
    output_scale: float = 1.0

    def outputs(self, values: np.ndarray) -> np.ndarray:
        """
        :param values: bytes, or levels of an observation ``(n, ...)``
        :return: the integers of which the largest one is the action; of continuous actions those from -32767 to 32767
        """
        results = []
        for start in range(0, len(values), _BATCH):
            batch = values[start : start + _BATCH].reshape(len(values[start : start + _BATCH]), -1).astype(np.int64)
            if self.inputs is not None:
                batch = batch.clip(self.inputs.low, self.inputs.high)
            for layer in self.layers:
                batch = layer(batch)
            # QR-DQN's quantiles of one action are added up.
            results.append(batch.reshape(len(batch), -1, self.n_actions).sum(axis=1))
        return np.concatenate(results)

    def predict(self, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        Get the actions.

        :param observation: a raw observation, or a batch of them
        :return: the actions, in the shape that the environment takes, and the outputs (see ``outputs``), of the same
            batch
        """
        observation = np.asarray(observation)
        found = observation.shape
        if len(found) - len(self.shape) not in (0, 1) or found[len(found) - len(self.shape) :] != self.shape:
            raise ValueError(f"An observation must have the shape {self.shape}, alone or in a batch, not {found}.")
        if self.inputs is None and observation.dtype.kind not in "iub":
            raise ValueError(f"Observations of this policy are bytes, 0 to 255, not {observation.dtype}.")
        if self.inputs is None and observation.size and not 0 <= observation.min() <= observation.max() <= 255:
            raise ValueError(
                f"Observations of this policy are bytes, 0 to 255, not {observation.min()} to {observation.max()}."
            )
        single = observation.ndim == len(self.shape)
        flat = observation.reshape(1 if single else len(observation), -1)
        outputs = self.outputs(flat if self.inputs is None else self.inputs.levels(flat))
        actions = outputs.argmax(axis=1) if self.action_shape is None else self.to_actions(outputs)
        return (actions[0], outputs[0]) if single else (actions, outputs)

    def to_actions(self, outputs: np.ndarray) -> np.ndarray:
        """
        :param outputs: integers of continuous actions
        :return: the actions
        """
        assert self.action_shape is not None and self.centre is not None and self.half is not None
        actions = self.centre + outputs.astype(np.float32) * (self.half / np.float32(FULL))
        return actions.reshape(len(outputs), *self.action_shape)

    def to_bytes(self) -> bytes:
        """
        :return: the content of ``policy.npz``
        """
        arrays: dict[str, np.ndarray] = {}

        def plain(prefix: str, item: Any) -> dict[str, Any]:
            numbers = {}
            for name, value in vars(item).items():
                if isinstance(value, np.ndarray):
                    arrays[f"{prefix}{name}"] = value
                elif name not in ("inputs", "layers"):
                    numbers[name] = value
            return numbers

        header = plain("", self)
        header["inputs"] = None if self.inputs is None else plain("inputs.", self.inputs)
        header["layers"] = [plain(f"{index}.", layer) for index, layer in enumerate(self.layers)]
        buffer = io.BytesIO()
        np.savez(buffer, header=np.array(json.dumps(header)), **arrays)  # type: ignore[arg-type]
        return buffer.getvalue()

    @classmethod
    def load(cls, path: "str | Path | bytes") -> "IntegerPolicy":
        """
        :param path: ``policy.npz``, or its content
        :return: the policy
        :raises ValueError: it is no such file, or its parts do not fit together
        """
        try:
            with np.load(io.BytesIO(path) if isinstance(path, bytes) else path, allow_pickle=False) as file:
                policy = cls._from_arrays(dict(file))
            policy._check()
        except OSError:
            raise
        except Exception as error:
            # A damaged file can hold anything.
            name = "policy.npz" if isinstance(path, bytes) else path
            raise ValueError(f"{name} is no integer policy ({error}): export the agent again.") from error
        return policy

    @classmethod
    def _from_arrays(cls, arrays: dict[str, np.ndarray]) -> "IntegerPolicy":
        header = json.loads(str(arrays.pop("header")))

        def read(value: Any) -> Any:
            return tuple(int(item) for item in value) if isinstance(value, list) else value

        def own(prefix: str, numbers: dict[str, Any]) -> dict[str, Any]:
            parts = {name[len(prefix) :]: value for name, value in arrays.items() if name.startswith(prefix)}
            parts = {name: value for name, value in parts.items() if "." not in name}
            return parts | {name: read(value) for name, value in numbers.items()}

        inputs = header.pop("inputs")
        layers = [Layer(**own(f"{index}.", item)) for index, item in enumerate(header.pop("layers"))]
        return cls(
            inputs=None if inputs is None else Inputs(**own("inputs.", inputs)),
            layers=tuple(layers),
            **own("", header),
        )

    def _check(self) -> None:
        """Whether the parts fit together, so that nothing is computed beyond an array."""
        entries, size = math.prod(self.shape), math.prod(self.shape)
        of_inputs = [] if self.inputs is None else [*vars(self.inputs).values()]
        of_actions = [part for part in (self.centre, self.half) if part is not None]
        require(all(type(number) is int and number > 0 for number in (*self.shape, self.n_actions)), "sizes")
        require(all(part.dtype.kind in "iuf" and part.shape in ((1,), (entries,)) for part in of_inputs), "inputs")
        require(all(part.dtype.kind == "f" and part.shape == (self.n_actions,) for part in of_actions), "bounds")
        require(len(of_actions) == (0 if self.action_shape is None else 2), "bounds of actions")
        require(type(self.wide) is bool and type(self.output_scale) is float and len(self.layers) > 0, "numbers")
        for layer in self.layers:
            size = layer.check(size)
        require(size % self.n_actions == 0, "outputs")
        require(self.action_shape is None or size == self.n_actions == math.prod(self.action_shape), "shape of actions")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python integer_policy.py policy.npz observation.npy")
    print(IntegerPolicy.load(sys.argv[1]).predict(np.load(sys.argv[2], allow_pickle=False))[0])
