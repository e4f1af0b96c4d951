"""Which input of an ONNX file is the observation, which are a memory, and which output is what."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from sb3_distill.agents.files import AgentError
from sb3_distill.agents.kinds.onnx_file import OnnxFile, Port
from sb3_distill.common.utils import unknown_choice
from sb3_distill.reading.limits import MAX_SPACE_ELEMENTS, check_size
from sb3_distill.state.memory import State

# How exporters name observations, and the kinds of answers
_OBSERVATIONS = ("observation", "observations", "obs", "input", "x")
_NAMES = {
    "q_values": "q_values",
    "logits": "logits",
    "mean": "mean",
    "mu": "mean",
    "action": "action",
    "actions": "action",
}


@dataclass(frozen=True)
class Memory:
    """
    The inputs and outputs that are a memory.

    :param pairs: the input and the output of each part
    :param axes: by input, the axis that counts observations
    :param is_batched: whether the file takes several observations at once
    """

    pairs: tuple[tuple[Port, Port], ...]
    axes: dict[str, int]
    is_batched: bool

    def begin(self, n_envs: int) -> State:
        """
        :param n_envs: number of environments
        :return: the state before the first observation: zeros, the first axis that of the environments
        """
        state = {}
        for port, _ in self.pairs:
            shape = [size if isinstance(size, int) else 1 for size in port.shape]
            if self.is_batched:
                del shape[self.axes[port.name]]
            check_size(f"the input {port.name}", n_envs * int(np.prod(shape, dtype=object)), MAX_SPACE_ELEMENTS)
            state[port.name] = np.zeros((n_envs, *shape), port.dtype)
        return state

    def run(self, file: OnnxFile, name: str, obs: np.ndarray, state: State) -> tuple[dict[str, np.ndarray], State]:
        """
        :param file: the file
        :param name: the input with the observations
        :param obs: the observations
        :param state: the state before them
        :return: by name, the outputs, and the state after them
        :raises AgentError: a part of the state has another shape than before
        """
        outputs = [port.name for port in file.outputs]
        if self.is_batched:
            feeds = {port.name: np.moveaxis(state[port.name], 0, self.axes[port.name]) for port, _ in self.pairs}
            found = dict(zip(outputs, file.session.run(outputs, {name: obs, **feeds}), strict=True))
            for port, out in self.pairs:
                given, expected = found[out.name].shape, feeds[port.name].shape
                if given != expected:
                    raise AgentError(
                        f"{file.path}: its output {out.name} has the shape {given} for {len(obs)} observations, which "
                        f"should be {expected}, as its input {port.name} has it: a memory keeps its shape."
                    )
            after = {p.name: np.moveaxis(found[out.name], self.axes[p.name], 0) for p, out in self.pairs}
            return found, after
        rows = []
        for row in range(len(obs)):
            feeds = {port.name: state[port.name][row] for port, _ in self.pairs}
            rows.append(file.session.run(outputs, {name: obs[row : row + 1], **feeds}))
        stacked = {each: np.stack([row[index] for row in rows]) for index, each in enumerate(outputs)}
        memories = {out.name for _, out in self.pairs}
        # Of a batch of one, the batch; a constant, such as the standard deviation of a Gaussian, has none.
        found = {
            each: array if each in memories or array.shape[1:2] != (1,) else array.reshape(len(obs), *array.shape[2:])
            for each, array in stacked.items()
        }
        return found, {port.name: stacked[out.name] for port, out in self.pairs}


@dataclass(frozen=True)
class Ports:
    """
    What the inputs and outputs of a file are.

    :param observation: the input that takes observations
    :param memory: the inputs and outputs that are a memory
    :param answers: the kind of answers
    :param answer: the output with the answers
    :param log_std: that with the logarithm of the standard deviation, if there is one
    :param value: that with the value, if there is one
    """

    observation: Port
    memory: Memory
    answers: str
    answer: Port
    log_std: Port | None
    value: Port | None


class Options(Protocol):
    """What a user says of the inputs and outputs of a file: see ``OnnxOptions``."""

    @property
    def answers(self) -> str | None: ...
    @property
    def observation(self) -> str | None: ...
    @property
    def memory(self) -> Mapping[str, str] | None: ...
    @property
    def output(self) -> str | None: ...
    @property
    def log_std(self) -> str | None: ...
    @property
    def value(self) -> str | None: ...


def find_ports(file: OnnxFile, options: Options) -> Ports:
    """
    :param file: an open file
    :param options: what the user says
    :return: what its inputs and outputs are
    :raises AgentError: the file does not say it, and the user does not either; or it takes what no agent gives
    """
    output, log_std, value = options.output, options.log_std, options.value
    observation, pairs = _find_memory(file, options.observation, options.memory)
    if observation.dtype is None:
        raise AgentError(
            f"{file.path}: its input {observation.name} takes {observation.kind}; observations are floats or bytes."
        )
    for port, _ in pairs:
        if port.dtype is None:
            raise AgentError(f"{file.path}: its state {port.name} is {port.kind}; a memory is of floats or bytes.")
    outputs = {port.name: port for port in file.outputs}
    for option, name in (("output", output), ("log_std", log_std), ("value", value)):
        if name is not None and name not in outputs:
            raise AgentError(f"{file.path}: teacher_kwargs, {option}: " + unknown_choice("output", name, outputs))
    named = [name for name in (output, log_std, value) if name is not None]
    if len(set(named)) < len(named):
        raise AgentError(
            f"{file.path}: teacher_kwargs: output, log_std and value must be outputs of their own, not "
            f"{', '.join(named)}."
        )
    taken = {out.name for _, out in pairs} | {log_std, value}
    left = [port for port in file.outputs if port.name not in taken]
    kind, answer = _find_answer(file, left, options.answers, None if output is None else outputs[output])
    for port in (answer, *(outputs[name] for name in (log_std, value) if name is not None)):
        if not port.is_number:
            raise AgentError(
                f"{file.path}: its output {port.name} is {port.kind}, and answers are arrays of numbers: export the "
                "file without this conversion, or name another output in teacher_kwargs."
            )
    return Ports(
        observation,
        _memory_of(observation, pairs),
        kind,
        answer,
        None if log_std is None else outputs[log_std],
        None if value is None else outputs[value],
    )


def _find_memory(
    file: OnnxFile, observation: str | None, memory: Mapping[str, str] | None
) -> tuple[Port, tuple[tuple[Port, Port], ...]]:
    """The input with observations, and the pairs of inputs and outputs that are a memory."""
    inputs, outputs = {port.name: port for port in file.inputs}, {port.name: port for port in file.outputs}
    for option, kind, names, known in (
        ("observation", "input", [] if observation is None else [observation], inputs),
        ("memory", "input", memory or (), inputs),
        ("memory", "output", (memory or {}).values(), outputs),
    ):
        for name in names:
            if name not in known:
                raise AgentError(f"{file.path}: teacher_kwargs, {option}: " + unknown_choice(kind, name, known))
    if memory is None:
        pairs = _pairs_by_name(file, observation)
    else:
        pairs = [(inputs[name], outputs[other]) for name, other in memory.items()]
        if len({out.name for _, out in pairs}) < len(pairs):
            raise AgentError(
                f"{file.path}: teacher_kwargs, memory: each input needs an output of its own, not {memory}."
            )
    paired = {port.name for port, _ in pairs}
    left = [port for port in file.inputs if port.name not in paired]
    free = [port for port in file.outputs if port.name not in {out.name for _, out in pairs}]
    if len(left) > 1:
        first = _observation_among(file, left, free, observation)
        for port in (port for port in left if port is not first):
            same = [out for out in free if _alike(port, out)]
            rivals = [other for other in left if other is not first and _alike(other, port)]
            if len(same) != 1 or len(rivals) != 1:
                found = f"{len(same)} outputs have its shape" if same else "no output has its shape"
                raise _unclear(file, f"which output follows {port.name} {list(port.shape)} ({found})")
            pairs.append((port, same[0]))
        left = [first]
    if not left or len(left[0].shape) < 2:
        shapes = ", ".join(f"{port.name} {list(port.shape)}" for port in file.inputs) or "none"
        raise AgentError(f"{file.path} has no input for a batch of observations; its inputs are {shapes}.")
    n = left[0].shape[0]
    if isinstance(n, int) and n != 1:
        raise AgentError(
            f"{file.path}: its input {left[0].name} {list(left[0].shape)} takes {n} observations at once, and a "
            "teacher is asked about any number: export it with an open first axis (dynamic_axes or dynamic_shapes of "
            "torch), or with a first axis of 1."
        )
    return left[0], tuple(pairs)


def _pairs_by_name(file: OnnxFile, observation: str | None) -> list[tuple[Port, Port]]:
    """The inputs and outputs whose names say that one follows the other; a next observation is no memory."""
    outputs = {port.name: port for port in file.outputs}
    if observation is None:
        known = [port.name for port in file.inputs if port.name.lower() in _OBSERVATIONS]
        observation = known[0] if len(known) == 1 else None
    pairs = []
    for port in file.inputs:
        names = (f"{port.name.removesuffix('_in')}_out", f"{port.name}_out", f"next_{port.name}")
        found = [name for name in dict.fromkeys(names) if name in outputs and name != port.name != observation]
        if len(found) > 1:
            raise _unclear(file, f"which output follows {port.name} ({' or '.join(found)})")
        pairs += [(port, outputs[name]) for name in found]
    return pairs


def _observation_among(file: OnnxFile, left: list[Port], free: list[Port], named: str | None) -> Port:
    """Of several inputs, the observation: the named one, else by its name, else the only one that no output follows."""
    for found in (
        [port for port in left if port.name == named],
        [port for port in left if port.name.lower() in _OBSERVATIONS],
        [port for port in left if not any(_alike(port, out) for out in free)],
    ):
        if len(found) == 1:
            return found[0]
    raise _unclear(file, "which one is the observation")


def _unclear(file: OnnxFile, what: str) -> AgentError:
    names = ", ".join(port.name for port in file.inputs)
    return AgentError(
        f"{file.path} has the inputs {names}, and does not say {what}. Say it: teacher_kwargs=dict(observation=NAME, "
        "memory={INPUT: OUTPUT, ...})."
    )


def _alike(port: Port, other: Port) -> bool:
    return port.kind == other.kind and _fixed(port) == _fixed(other)


def _fixed(port: Port) -> tuple[Any, ...]:
    return tuple(size if isinstance(size, int) else None for size in port.shape)


def _memory_of(observation: Port, pairs: tuple[tuple[Port, Port], ...]) -> Memory:
    axes = {port.name: [axis for axis, size in enumerate(port.shape) if not isinstance(size, int)] for port, _ in pairs}
    is_batched = not isinstance(observation.shape[0], int) and all(len(own) == 1 for own in axes.values())
    return Memory(pairs, {name: own[0] for name, own in axes.items()} if is_batched else {}, is_batched)


def _find_answer(file: OnnxFile, left: list[Port], answers: str | None, output: Port | None) -> tuple[str, Port]:
    shown = ", ".join(f"{port.name} {list(port.shape)}" for port in left) or "none"
    named = [port for port in left if _NAMES.get(port.name.lower()) is not None]
    if output is None and answers is not None:
        found = [port for port in named if _NAMES[port.name.lower()] == answers]
        # Numbers of actions are whole, all other answers are not.
        found = found or [port for port in left if port.is_float or answers == "action"] or left
    elif output is None:
        # A file that gives both chose its actions by these numbers.
        found = [port for port in named if port.is_float and _NAMES[port.name.lower()] != "action"] or named or left
        if any(port.name == "action" and port.is_float for port in named):
            found = [port for port in named if port.name == "action"]
    else:
        found = [output]
    if len(found) != 1:
        raise AgentError(
            f"{file.path} has the outputs {shown}: say which one holds the answers, teacher_kwargs=dict(output=NAME)."
        )
    kind = answers or _NAMES.get(found[0].name.lower())
    if kind is None:
        raise AgentError(
            f"{file.path} does not say what its output {found[0].name} {list(found[0].shape)} is: pass "
            "teacher_kwargs=dict(answers=...), one of q_values, logits, mean, action."
        )
    if kind != "action" and not found[0].is_float:
        raise AgentError(f"{file.path}: its output {found[0].name} is {found[0].kind}, which cannot be {kind}.")
    return kind, found[0]
