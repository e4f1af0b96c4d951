"""Policies in ONNX files, as torch, TensorFlow, Isaac Lab, rsl_rl, d3rlpy and this library export them."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_distill.agents.agent import AgentFacts
from sb3_distill.agents.files import AgentError
from sb3_distill.agents.kinds.acting import n_observations
from sb3_distill.agents.kinds.answering import AnsweringTeacher, NoPolicy
from sb3_distill.agents.kinds.onnx_file import Port, open_onnx
from sb3_distill.agents.kinds.onnx_macs import count_onnx_macs
from sb3_distill.agents.kinds.onnx_options import OnnxOptions, read_description
from sb3_distill.agents.kinds.onnx_ports import Memory, find_ports
from sb3_distill.common.answers import Answers, Gaussian, clip_scaled, scale_actions, unscale_actions
from sb3_distill.common.finite import has_bounds
from sb3_distill.common.utils import counted
from sb3_distill.envs.recipe import EnvRecipe
from sb3_distill.envs.views import FLAT_VIEW, space_in_a_row
from sb3_distill.state.memory import State


class OnnxTeacher(AnsweringTeacher):
    """
    A policy in an ONNX file. It runs on the CPU, whatever the device of the run is.

    :param path: the file
    :param teacher_kwargs: see ``OnnxOptions``
    :param env_id: the environment on which it was trained, if known
    :param env: an environment with its spaces; what it gives is not asked of the file
    :raises AgentError: the file cannot be used, or does not say what is needed
    """

    kind = "an ONNX file"

    def __init__(
        self, path: Path, teacher_kwargs: Mapping[str, Any] | None = None, env_id: str | None = None, env: Any = None
    ) -> None:
        given = dict(teacher_kwargs or {})
        options = OnnxOptions.read(given)
        if options.memory is not None:
            # Its order decides nothing.
            given["memory"] = dict(sorted(options.memory.items()))
        file = open_onnx(path)
        described = read_description(path)
        self._file, self._options = file, options
        self._ports = find_ports(file, options)
        self._answers = answers = self._find_answers(described)
        self._check_options()
        # Whether it takes images with the channels last, as TensorFlow's, and the environment gives them first
        self._channels_last = False
        # The parts of Dict observations that it takes in a row
        self._keys: tuple[str, ...] = ()
        observation_space = self._observation_space(described, env)
        self._action_space = self._find_action_space(described, env)
        self._range = self._find_range(self._action_space)
        recipe: EnvRecipe | None = described.get("recipe")
        if recipe is not None and self._keys:
            # The parts are put in a row here.
            views = [wrapper for wrapper in recipe.vec_wrappers if wrapper.name != FLAT_VIEW]
            recipe = replace(recipe, vec_wrappers=views)
        # Options are a part of what it answers.
        sha256 = hashlib.sha256(f"{file.sha256} {sorted(given.items())}".encode()).hexdigest() if given else file.sha256
        facts = AgentFacts(
            "onnx",
            str(path),
            sha256,
            env_id or described.get("env_id"),
            zip_bytes=file.n_file_bytes,
            recipe=recipe,
        )
        super().__init__(NoPolicy(observation_space, self._action_space, squash_output=False), facts)
        self.needs_masks = described.get("needs_masks", False)
        self.has_distribution = answers == "logits" or (answers == "mean" and options.log_std is not None)
        self._try()

    def _say(self, text: str) -> AgentError:
        return AgentError(f"{self._file.path}: {text}")

    def _find_answers(self, described: Mapping[str, Any]) -> str:
        """The kind of answers: what is said of our own exports beside them, else what the user says or a name tells."""
        port, answers = self._ports.answer.name, self._options.answers
        known = described.get("outputs")
        if port != "logits" or known is None:
            return self._ports.answers
        if known == "mean" or answers not in (None, known):
            meant = (
                "means of actions before they are squashed or clipped" if known == "mean" else f"{known} of the agent"
            )
            raise self._say(
                f"its output {port} holds the {meant}, as policy.json beside it says: leave answers and output out of "
                "teacher_kwargs."
            )
        return known

    def _check_options(self) -> None:
        """Refuse what has no meaning for such answers."""
        options, answer = self._options, self._ports.answer
        is_discrete = self._answers in ("q_values", "logits") or not answer.is_float
        if options.log_std is not None and self._answers != "mean":
            advice = "" if is_discrete else ", or say that it is a mean, teacher_kwargs=dict(answers='mean')"
            raise self._say(
                f"teacher_kwargs: log_std belongs to a mean, and the output {answer.name} holds {self._answers!r}: "
                f"leave log_std out{advice}."
            )
        if options.low is not None and is_discrete:
            raise self._say(
                f"teacher_kwargs: low and high are bounds of continuous actions, and those of the output {answer.name} "
                f"({self._answers!r}) are discrete: leave low and high out."
            )

    def _in_a_row(self, parts: Mapping[str, int], seen: spaces.Dict) -> spaces.Dict:
        """The parts of an environment's observations that our own export takes in a row."""
        if any(key not in seen.spaces or math.prod(seen[key].shape or ()) != size for key, size in parts.items()):
            wanted = ", ".join(f"{key} ({size})" for key, size in parts.items())
            raise self._say(
                f"it takes these parts of Dict observations in a row (with so many numbers): {wanted}. The environment "
                f"shows it {seen}: take one with these parts, or name them with teacher_keys."
            )
        self._keys = tuple(parts)
        return spaces.Dict({key: seen[key] for key in parts})

    def _observation_space(self, described: Mapping[str, Any], env: Any) -> spaces.Space:
        port: Port = self._ports.observation
        seen = getattr(env, "observation_space", None)
        if described.get("parts") and isinstance(seen, spaces.Dict):
            return self._in_a_row(described["parts"], seen)
        shape = port.shape[1:]
        if any(not isinstance(size, int) for size in shape):
            if not isinstance(seen, spaces.Box) or len(seen.shape) != len(shape):
                raise self._say(f"its input {port.name} leaves its shape open ({port.shape}): pass env=.")
            shape = seen.shape
        if self._options.scale is not None and (
            not port.is_float or (isinstance(seen, spaces.Box) and seen.dtype.kind == "f")
        ):
            raise self._say(
                f"teacher_kwargs: scale divides bytes for a file that takes floats. Its input {port.name} takes "
                f"{port.kind}, and the environment gives {'unknown observations' if seen is None else seen}: leave "
                "scale out."
            )
        if isinstance(seen, spaces.Box):
            if seen.dtype.kind in "ui" and port.is_float and self._options.scale is None:
                raise self._say(
                    f"its input {port.name} takes floats, and the environment gives {seen.dtype}. Say by what these "
                    "are divided: teacher_kwargs=dict(scale=255), or scale=1 if the file does it itself."
                )
            if seen.dtype.kind == "f" and not port.is_float:
                raise self._say(
                    f"its input {port.name} takes {port.kind}, and the environment gives {seen.dtype}, which it would "
                    "cut to whole numbers: wrap the environment, or export the file with a float input."
                )
            self._channels_last = len(shape) == 3 and seen.shape != shape and _channels_first(shape) == seen.shape
            if seen.shape == shape or self._channels_last:
                return seen
            dtype: Any = seen.dtype.type
        else:
            dtype = described.get("dtype", port.dtype) if self._options.scale is None else np.uint8
        # Half precision is the file's own: nobody else observes in it.
        dtype = np.float32 if dtype == np.float16 else dtype
        kind = np.dtype(dtype).kind
        low, high = (0, 1) if kind == "b" else (-np.inf, np.inf)
        if kind in "ui":
            low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        return spaces.Box(low, high, shape, np.dtype(dtype).type)

    def _find_action_space(self, described: Mapping[str, Any], env: Any) -> Any:
        options, answer = self._options, self._ports.answer
        space = getattr(env, "action_space", None)
        sizes = answer.shape[1:]
        width = math.prod(sizes) if sizes and all(isinstance(size, int) for size in sizes) else None
        if self._answers in ("q_values", "logits") or not answer.is_float:
            if isinstance(space, spaces.Box):
                raise self._say(
                    f"its output {answer.name} holds {self._answers!r} of discrete actions, and the environment's are "
                    f"{space}: say that it holds a mean or an action, teacher_kwargs=dict(answers=...)."
                )
            n = width if answer.is_float else None
            n = n or described.get("n") or getattr(space, "n", None)
            if n is None:
                raise self._say(f"its output {answer.name} does not say how many actions there are: pass env=.")
            return spaces.Discrete(int(n))
        if isinstance(space, spaces.Discrete):
            raise self._say(
                f"its output {answer.name} holds {self._answers!r}, and the environment's actions are {space}: say "
                "that it holds logits or q_values, teacher_kwargs=dict(answers=...)."
            )
        if isinstance(space, spaces.Box):
            if options.low is not None and not has_bounds(space).all():
                raise self._say(
                    f"the environment's actions have no bounds ({space}), to which those between low and high could "
                    "be scaled: leave low and high out."
                )
            return space
        low, high = options.low, options.high
        if "low" in described:
            low, high = (described["low"], described["high"]) if low is None else (low, high)
            return _box(low, high, described["shape"])
        if low is None:
            raise self._say(
                "it does not say the bounds of the actions: pass env=, or teacher_kwargs=dict(low=-1.0, high=1.0)."
            )
        shape = np.broadcast(low, high).shape
        return _box(low, high, shape if shape and width in (None, math.prod(shape)) else (width or 1,))

    def _find_range(self, space: Any) -> spaces.Box | None:
        """Between which bounds the actions are that the file gives."""
        if not isinstance(space, spaces.Box) or self._options.low is None:
            return space if isinstance(space, spaces.Box) else None
        return _box(self._options.low, self._options.high, space.shape)

    def _try(self) -> None:
        """Ask at once, so that what is wrong is said before anything is trained."""
        space = self.observation_space
        parts: dict[str, Any] = space.spaces if isinstance(space, spaces.Dict) else {"": space}
        # Two actions of two observations would not show which axis counts what.
        for n_envs in (2, 3):
            zeros = {key: th.as_tensor(np.zeros((n_envs, *part.shape), part.dtype)) for key, part in parts.items()}
            obs = zeros if isinstance(space, spaces.Dict) else zeros[""]
            _, state = self.answer(obs, None, np.ones(n_envs, bool), with_values=True)
            self._check_form(state)
            _, state = self.answer(obs, state, np.zeros(n_envs, bool))
            self._check_form(state)

    @property
    def network(self) -> nn.Module:
        """None of torch's: an empty module."""
        return nn.ModuleList()

    @property
    def acting_modules(self) -> list[nn.Module]:
        """None of torch's."""
        return []

    @property
    def n_parameters(self) -> int:
        """Number of weights in the file."""
        return self._file.n_parameters

    @property
    def n_bytes(self) -> int:
        """Size of the weights in the file."""
        return self._file.n_weight_bytes

    @property
    def n_macs(self) -> int | None:
        """Multiplications for one observation; None where they are not known."""
        space: Any = self.observation_space
        shape = space_in_a_row(space, self._keys).shape if isinstance(space, spaces.Dict) else space.shape
        shape = (shape[1:] + shape[:1]) if self._channels_last else shape
        memory = self._ports.memory
        port = self._ports.observation
        feeds = {port.name: np.zeros((1, *shape), port.dtype)}
        for name, part in memory.begin(1).items():
            feeds[name] = np.moveaxis(part, 0, memory.axes[name]) if memory.is_batched else part[0]
        return count_onnx_macs(self._file, feeds)

    @property
    def has_critic(self) -> bool:
        """Whether an output with values is named."""
        return self._ports.value is not None

    @th.no_grad()
    def answer(
        self, obs: PyTorchObs, state: State = None, episode_start: np.ndarray | None = None, with_values: bool = False
    ) -> tuple[Answers, State]:
        """
        As ``Teacher.answer``.

        :raises AgentError: the file gives other shapes than it says, or numbers that are not finite
        """
        if isinstance(obs, dict):
            obs = th.cat([obs[key].reshape(n_observations(obs), -1) for key in self._keys], dim=1)
        seen = obs.cpu().numpy()
        port = self._ports.observation
        if self._channels_last:
            seen = np.moveaxis(seen, 1, -1)
        if self._options.scale is not None:
            seen = seen.astype(np.float32) / self._options.scale
        memory: Memory = self._ports.memory
        before = memory.begin(len(seen)) if state is None else self._go_on(state, episode_start, len(seen))
        try:
            found, after = memory.run(self._file, port.name, seen.astype(port.dtype, copy=False), before)
        except AgentError:
            raise
        except Exception as error:
            # The runtime's own kinds of errors
            reason = " ".join(str(error).split())
            raise self._say(f"it cannot be run on observations of the shape {seen.shape}: {reason:.300}") from error
        return self._answers_of(found, len(seen), with_values), after or None

    def _answers_of(self, found: Mapping[str, np.ndarray], n_envs: int, with_values: bool) -> Answers:
        space, ports = self._action_space, self._ports
        values = None
        if with_values and ports.value is not None:
            values = self._tensor(found, ports.value, (n_envs,)).reshape(n_envs)
        if isinstance(space, spaces.Discrete):
            n = int(space.n)
            if not ports.answer.is_float:
                self._check_shape(found, ports.answer, (n_envs,))
                chosen = th.as_tensor(found[ports.answer.name].astype(np.int64).reshape(n_envs))
                if not ((chosen >= 0) & (chosen < n)).all():
                    raise self._say(
                        f"its output {ports.answer.name} gives the actions {chosen.min()} to {chosen.max()}, and the "
                        f"environment has 0 to {n - 1}."
                    )
                return Answers(q_values=nn.functional.one_hot(chosen, n).float().to(self.device), values=values)
            outputs = self._tensor(found, ports.answer, (n_envs, n)).reshape(n_envs, n)
            if self._answers == "q_values":
                return Answers(q_values=outputs, values=values)
            return Answers(log_probs=outputs.log_softmax(dim=1), values=values)
        width = int(np.prod(space.shape))
        # In the form of the actions, or in a row
        shapes = (n_envs, width), (n_envs, *space.shape)
        outputs = self._tensor(found, ports.answer, *shapes).reshape(n_envs, width)
        if self._answers == "mean" and ports.log_std is not None:
            # It can be the same for all observations.
            log_std = self._tensor(found, ports.log_std, *shapes, (width,), space.shape).reshape(-1, width)
            std = log_std.expand(n_envs, width).exp()
            if not (th.isfinite(std) & (std > 0)).all():
                raise self._say(
                    f"its output {ports.log_std.name} goes from {log_std.min():g} to {log_std.max():g}, which is no "
                    "logarithm of a standard deviation."
                )
            return Answers(gaussian=self._scaled(Gaussian(outputs, std)), values=values)
        assert self._range is not None
        return Answers(point=clip_scaled(scale_actions(outputs, self._range), self._range), values=values)

    def _scaled(self, gaussian: Gaussian) -> Gaussian:
        """The file's Gaussian between the bounds of the environment's actions."""
        if self._options.low is None:
            return gaussian
        own, given = self._action_space, self._range
        assert given is not None
        mean = unscale_actions(scale_actions(gaussian.mean, given), own)
        factor = ((own.high - own.low) / (given.high - given.low)).reshape(-1)
        return Gaussian(mean, gaussian.std * th.as_tensor(factor, device=self.device))

    def _check_shape(self, found: Mapping[str, np.ndarray], port: Port, *shapes: tuple[int, ...]) -> None:
        """Whether an output has one of these shapes; axes of length 1 change nothing."""
        given = found[port.name].shape
        if _without_ones(given) not in map(_without_ones, shapes):
            expected = " or ".join(map(str, dict.fromkeys(shapes)))
            n_envs = shapes[0][0]
            raise self._say(
                f"its output {port.name} has the shape {given} for {counted(n_envs, 'observation')}, which should be "
                f"{expected}: the first axis counts observations."
            )

    def _tensor(self, found: Mapping[str, np.ndarray], port: Port, *shapes: tuple[int, ...]) -> th.Tensor:
        """An output, which has one of these shapes."""
        self._check_shape(found, port, *shapes)
        tensor = th.as_tensor(np.array(found[port.name])).to(self.device, th.float32)
        if not tensor.isfinite().all():
            raise self._say(f"its output {port.name} holds NaN or infinite numbers.")
        return tensor


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _box(low: np.ndarray, high: np.ndarray, shape: tuple[int, ...]) -> spaces.Box:
    """Actions between bounds, of which each is one number or one for every dimension."""
    for name, bound in (("low", low), ("high", high)):
        if bound.size not in (1, math.prod(shape)):
            raise AgentError(
                f"teacher_kwargs: {name} has {counted(bound.size, 'number')}, and the actions have the shape {shape}: "
                "pass one number, or one for each dimension."
            )
    low, high = (np.broadcast_to(bound.reshape(shape if bound.size > 1 else ()), shape) for bound in (low, high))
    return spaces.Box(low, high, dtype=np.float32)


def _channels_first(shape: tuple[Any, ...]) -> tuple[Any, ...]:
    return (shape[-1], *shape[:-1])
