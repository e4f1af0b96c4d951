"""Agents that are an object of the user's own, with spaces and an ``answer``."""

import copy
import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.utils import get_device
from torch import nn

from sb3_distill.agents.agent import AgentFacts
from sb3_distill.agents.files import AgentError
from sb3_distill.agents.kinds.acting import n_observations
from sb3_distill.agents.kinds.answering import AnsweringTeacher, NoPolicy
from sb3_distill.common.answers import Answers, clip_scaled
from sb3_distill.common.finite import bounded_sides
from sb3_distill.envs.imports import find_function
from sb3_distill.state.memory import State, find_state_problem, map_state, rows_of

_NEEDED = ("observation_space", "action_space", "answer")
# A function that makes a teacher, as a user names it to the Zoo; "zoo:" and "hub:" are agents
_FUNCTION = re.compile(r"(?!(zoo|hub):)[A-Za-z_][\w.]*:[A-Za-z_]\w*")
# It is asked about so many observations for so many steps when it is loaded.
_N_ENVS, _N_STEPS = 4, 4


class TeacherLike(Protocol):
    """What an object needs to be accepted as a teacher. ``load_teacher`` gives it the rest."""

    # Raw observations as SB3 gives them: images channels first. Actions are Discrete or a Box.
    observation_space: spaces.Space
    action_space: spaces.Space

    def answer(self, obs: Any, state: Any, episode_start: Any) -> tuple[Answers, Any]:
        """
        What the teacher answers to a batch of observations.

        :param obs: raw observations as tensors ``(n_envs, ...)``, in a dictionary of Dict ones
        :param state: the state that the last call returned for the same environments, with zeros where an episode
            begins; None before the first one
        :param episode_start: where an episode begins, an array ``(n_envs,)`` of bool
        :return: the answers, as tensors or arrays, and the next state: None for a teacher without memory, else an
            array, or a tuple or a dictionary of arrays, whose first axis is that of the environments
        """


def is_function_name(source: Any) -> bool:
    """
    :param source: the source of a teacher
    :return: whether it names a function that makes one, ``package.module:make_teacher``
    """
    return isinstance(source, str) and _FUNCTION.fullmatch(source) is not None and not Path(source).exists()


def refuse_function_name(source: Any, where: str) -> None:
    """
    :param source: the source of a teacher, or sources by task, as a file names them
    :param where: the place in the file, for the message
    :raises AgentError: it names a function: calling it would run code because a file says so
    """
    for each in source.values() if isinstance(source, dict) else [source]:
        if is_function_name(each):
            raise AgentError(
                f"{where} names the function {each}. It is not called because a file says so: pass the teacher "
                "yourself, with teacher= (of several tasks, teachers=)."
            )


def call_function(name: str) -> Any:
    """
    :param name: ``package.module:make_teacher``, as a user wrote it
    :return: what the function returns
    :raises AgentError: the user has not named its package, there is no such function, or it fails
    """
    try:
        function = find_function(name, "The teacher", "call the function, and pass what it returns")
    except ValueError as error:
        raise AgentError(str(error)) from error
    try:
        made = function()
    except Exception as error:
        # Whatever the user's code raises
        raise AgentError(f"The function {name} failed ({type(error).__name__}: {error}).") from error
    if isinstance(made, (str, Path)):
        raise AgentError(f"{name} returned {made!r}: it must return the teacher itself, not the name of one.")
    return made


def is_teacher_like(source: Any) -> bool:
    """
    :param source: what a user passes as a teacher
    :return: whether it has anything of ``TeacherLike``
    """
    return any(hasattr(source, name) for name in _NEEDED)


class OwnTeacher(AnsweringTeacher):
    """
    An object of the user's own. It is asked about random observations at once, so that what it answers wrongly is said
    before anything is trained. Its hash is that of its class and of these answers.

    :param own: the object
    :param source: what to call it; None: the name of its class
    :param env_id: the environment on which it was trained, if known
    :param device: where its tensors are; it is moved there if it has the method ``to``
    :raises AgentError: something is missing, or its answers are not what they should be
    """

    kind = "an object of your own"

    def __init__(
        self, own: Any, source: str | None = None, env_id: str | None = None, device: th.device | str = "auto"
    ) -> None:
        self._own = own
        self._name = source or f"object:{type(own).__module__}.{type(own).__qualname__}"
        self._check_object()
        # Until the answers have said whether it squashes
        self.policy = NoPolicy(own.observation_space, own.action_space, squash_output=False)
        self._fields: frozenset[str] = frozenset()
        self.facts = AgentFacts("object", self._name, "", env_id)
        self.to(device)
        arrays = self._ask_at_random()
        self._fields = frozenset(arrays) - {"values"}
        self._has_values = "values" in arrays
        self.has_distribution = not self._fields & {"q_values", "point"}
        digest = hashlib.sha256(f"{type(own).__module__}.{type(own).__qualname__}".encode())
        for name in sorted(arrays):
            # In half precision, because the last bits differ from one processor to another
            digest.update(name.encode() + (arrays[name] + 0.0).astype(np.float16).tobytes())
        place = self.policy.device
        super().__init__(
            NoPolicy(own.observation_space, own.action_space, "squashed_mean" in arrays),
            replace(self.facts, sha256=digest.hexdigest()),
        )
        self.policy.to(place)

    def _check_object(self) -> None:
        if isinstance(self._own, type):
            raise AgentError(f"{self._name}: a class was passed, not an object of it: call it, {self._own.__name__}().")
        missing = [name for name in _NEEDED if not hasattr(self._own, name)]
        if missing:
            raise AgentError(
                f"{self._name} has no {' and no '.join(missing)}: a teacher needs {', '.join(_NEEDED[:-1])} and "
                "answer(obs, state, episode_start) -> (Answers, state)."
            )
        for name, kinds in (("observation_space", (spaces.Space,)), ("action_space", (spaces.Discrete, spaces.Box))):
            if not isinstance(getattr(self._own, name), kinds):
                expected = " or a ".join(f"gymnasium.spaces.{kind.__name__}" for kind in kinds)
                raise AgentError(f"{self._name}.{name} must be a {expected}, not {getattr(self._own, name)!r:.200}.")

    @property
    def _modules(self) -> list[nn.Module]:
        """The torch modules that it is, or that its attributes are."""
        if isinstance(self._own, nn.Module):
            return [self._own]
        return [value for value in getattr(self._own, "__dict__", {}).values() if isinstance(value, nn.Module)]

    @property
    def network(self) -> nn.Module:
        """Its torch modules, if it has some."""
        return nn.ModuleList(self._modules)

    @property
    def acting_modules(self) -> list[nn.Module]:
        """As ``network``: which of them act is not known."""
        return self._modules

    @property
    def has_critic(self) -> bool:
        """Whether its answers hold values."""
        return self._has_values

    @property
    def _width(self) -> int:
        """Numbers in an answer to one observation."""
        space = self.action_space
        return int(space.n) if isinstance(space, spaces.Discrete) else int(np.prod(space.shape))  # type: ignore[arg-type]

    def to(self, device: th.device | str) -> "OwnTeacher":
        """
        Move the object, if it can be moved; else its observations are on the processor.

        :param device: cpu, cuda, auto
        :return: the teacher itself
        """
        place = get_device(device)
        if callable(getattr(self._own, "to", None)):
            self._own.to(place)
        else:
            for module in self._modules:
                module.to(place)
            place = place if self._modules else th.device("cpu")
        self.policy.to(place)
        return self

    def _ask_at_random(self) -> dict[str, np.ndarray]:
        """Its answers to some observations of its space."""
        space = copy.deepcopy(self.policy.observation_space)
        space.seed(0)
        for part in space.values() if isinstance(space, spaces.Dict) else [space]:
            if isinstance(part, spaces.Box):
                # Not about numbers that no environment gives
                part.bounded_below, part.bounded_above = bounded_sides(part)
        # As many observations as actions would not show which axis counts what.
        n_envs = _N_ENVS + (self._width == _N_ENVS)
        starts, state, asked = np.ones(n_envs, dtype=bool), None, []
        for step in range(_N_STEPS):
            sampled = [space.sample() for _ in range(n_envs)]
            if isinstance(space, spaces.Dict):
                batch: Any = {key: np.stack([one[key] for one in sampled]) for key in space.spaces}
            else:
                batch = np.stack(sampled)
            obs, _ = self.policy.obs_to_tensor(batch)
            try:
                answers, state = self.answer(obs, state, starts, with_values=True)
                if step == _N_STEPS - 1:
                    # One environment less: a first axis that stays as long as it was counts something else.
                    self.answer(rows_of(obs, np.arange(1, n_envs)), None, np.ones(n_envs - 1, dtype=bool))
            except AgentError:
                raise
            except Exception as error:
                # Anything can go wrong in what a user wrote.
                raise AgentError(
                    f"{self._name}: answer(obs, state, episode_start) failed on {n_envs} random observations of its "
                    f"observation_space ({type(error).__name__}: {error})."
                ) from error
            self._check_form(state)
            asked.append(answers.numpy().arrays())
            # One episode begins in between.
            starts = np.arange(n_envs) == step
        same = {name for arrays in asked for name in arrays}
        if any(arrays.keys() != same for arrays in asked):
            raise AgentError(f"{self._name} answers with {sorted(same)}, but not always with all of them.")
        return {name: np.concatenate([arrays[name] for arrays in asked]) for name in same}

    @th.no_grad()
    def answer(
        self, obs: PyTorchObs, state: State = None, episode_start: np.ndarray | None = None, with_values: bool = False
    ) -> tuple[Answers, State]:
        """
        As ``Teacher.answer``, checked.

        :raises AgentError: the answers or the state are not what they should be
        """
        n_envs, device = n_observations(obs), self.policy.device
        obs = {key: part.to(device) for key, part in obs.items()} if isinstance(obs, dict) else obs.to(device)
        starts = np.zeros(n_envs, dtype=bool) if episode_start is None else np.asarray(episode_start, dtype=bool)
        if state is None:
            starts = np.ones(n_envs, dtype=bool)
        answered = self._own.answer(obs, self._go_on(state, starts, n_envs), starts)
        if not (isinstance(answered, tuple) and len(answered) == 2 and isinstance(answered[0], Answers)):
            raise AgentError(
                f"{self._name}: answer must return two things, Answers and the next state (None without memory), not "
                f"{answered!r:.200}."
            )
        answers, state = answered
        problem = find_state_problem(state, n_envs)
        if problem is not None:
            raise AgentError(f"{self._name}: {problem}.")
        state = map_state(lambda array: array.detach() if isinstance(array, th.Tensor) else array, state)
        return self._checked(answers, n_envs, with_values), state

    def _checked(self, answers: Answers, n_envs: int, with_values: bool) -> Answers:
        """The answers as tensors of the right shapes."""
        space, arrays = self.action_space, {}
        if answers.is_continuous != isinstance(space, spaces.Box):
            raise AgentError(
                f"{self._name}: its action_space is {space}, but it answers with {', '.join(answers.arrays())}. "
                "Discrete actions have q_values or log_probs, continuous ones a gaussian or a point."
            )
        for name, array in answers.arrays().items():
            tensor = th.as_tensor(array).to(self.policy.device, th.float32).detach()
            expected = (n_envs,) if name == "values" else (n_envs, self._width)
            if tuple(tensor.shape) != expected:
                raise AgentError(f"{self._name}: {name} has the shape {tuple(tensor.shape)}, not {expected}.")
            if not tensor.isfinite().all():
                raise AgentError(
                    f"{self._name}: {name} holds NaN or infinite numbers. For an impossible action, answer with a "
                    "large negative number such as -1e9."
                )
            if name.endswith("std") and not (tensor > 0).all():
                raise AgentError(f"{self._name}: {name} holds numbers that are not above 0.")
            if name == "point" and (clip_scaled(tensor, space) - tensor).abs().max() > 1e-3:  # type: ignore[arg-type]
                raise AgentError(
                    f"{self._name}: point must be scaled from the bounds of the actions to [-1, 1], and goes to "
                    f"{float(tensor.abs().max()):g}."
                )
            arrays[name] = tensor
        if self._fields and arrays.keys() - {"values"} != self._fields:
            raise AgentError(
                f"{self._name} answered with {', '.join(sorted(self._fields))} before, and now with "
                f"{', '.join(sorted(arrays))}."
            )
        if "log_probs" in arrays:
            # Logits are welcome, too.
            arrays["log_probs"] = arrays["log_probs"].log_softmax(dim=1)
        if not with_values:
            arrays.pop("values", None)
        return Answers.of_arrays(arrays)
