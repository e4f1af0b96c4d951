"""Builds an exported policy with the compiler at hand: to play, to time it, to measure what it takes."""

import ctypes
import os
import re
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sb3_distill.export.integer_policy import IntegerPolicy

# Sections of an object file, by what they are: read at run time, or run
_CODE, _CONSTANTS, _STATE = (".text",), (".rodata", ".data.rel.ro"), (".data", ".bss")
_SIZES = ("-Os", "-std=c99", "-ffunction-sections", "-fdata-sections", "-fcallgraph-info=su")


class BuildError(ValueError):
    """A policy cannot be built, or does not run."""


def find_compiler() -> str | None:
    """
    :return: path of the C compiler: the one of ``$CC``, else the usual ones; None if there is none
    """
    named = os.environ.get("CC")
    if named and shutil.which(named) is None:
        warnings.warn(f"$CC is {named!r}, which is no program (options are not read): another compiler is taken.")
    names = (named, "cc", "gcc", "clang")
    return next((path for name in names if name and (path := shutil.which(name))), None)


def find_size() -> str | None:
    """
    :return: path of the program that tells the sections of object files; None if there is none
    """
    return shutil.which("size")


def run_tool(*command: str | Path, folder: Path) -> str:
    """
    :param command: a program and its arguments
    :param folder: where it runs
    :return: what it prints
    :raises BuildError: it fails; the message has its last lines
    """
    result = subprocess.run([str(part) for part in command], cwd=folder, capture_output=True, text=True)
    if result.returncode != 0:
        lines = (result.stderr or result.stdout).strip().splitlines()[-3:]
        raise BuildError(f"{Path(command[0]).name} failed: {' '.join(lines) or f'status {result.returncode}'}")
    return result.stdout


class CPlayer:
    """
    The compiled policy, which plays as SB3's models do.

    :param folder: folder with ``policy.c``
    :param policy: the same policy in numpy, which knows shapes
    :param stack: number of observations that it sees at once, of which it keeps the earlier ones itself
    :raises BuildError: there is no compiler, or it fails
    """

    def __init__(self, folder: Path, policy: IntegerPolicy, stack: int) -> None:
        compiler = find_compiler()
        if compiler is None:
            raise BuildError("There is no C compiler (cc, gcc, clang, $CC): install one to measure policy.c.")
        self.policy, self.stack, self.source = policy, stack, str(folder / "policy.c")
        with tempfile.TemporaryDirectory() as build:
            library = Path(build) / "policy.so"
            run_tool(compiler, "-std=c99", "-O2", "-shared", "-fPIC", "policy.c", "-o", library, folder=folder)
            self._library = ctypes.CDLL(str(library))
        self._dtype = np.uint8 if policy.inputs is None else np.float32
        self._action = np.zeros(policy.n_actions, np.int16)
        self._library.policy_act.restype = ctypes.c_int32 if policy.action_shape is None else None

    def call(self, observation: np.ndarray, allowed: np.ndarray | None = None) -> Any:
        """
        :param observation: one observation as ``policy_act`` takes it
        :param allowed: which discrete actions are allowed; None: all of them
        :return: the action, or the integers of a continuous one
        """
        pointer = ctypes.c_void_p(observation.ctypes.data)
        if self.policy.action_shape is not None:
            self._library.policy_act(pointer, ctypes.c_void_p(self._action.ctypes.data))
            return self._action.copy()
        if allowed is None:
            return self._library.policy_act(pointer)
        mask = np.ascontiguousarray(allowed, np.uint8)
        return self._library.policy_act_masked(pointer, ctypes.c_void_p(mask.ctypes.data))

    def reset(self) -> None:
        """Forget earlier observations."""
        if self.stack > 1:
            self._library.policy_reset()

    def act(self, observations: np.ndarray) -> np.ndarray:
        """
        :param observations: raw observations ``(n, ...)``; each stacked one is given in its parts
        :return: the actions, or the integers of continuous ones
        """
        flat = np.ascontiguousarray(observations.reshape(len(observations), self.stack, -1), self._dtype)
        actions = []
        for parts in flat:
            self.reset()
            actions.append([self.call(part) for part in parts][-1])
        return np.array(actions)

    def newest(self, observations: np.ndarray) -> np.ndarray:
        """
        :param observations: a batch of raw observations
        :return: what ``policy_act`` takes of the last one
        """
        batch = np.ascontiguousarray(observations, self._dtype).reshape(len(observations), self.stack, -1)
        return batch[-1, -1]

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, Any]:
        """As SB3's ``predict``, on a batch; of a policy that keeps observations on one that follows the last."""
        if self.stack > 1:
            assert len(observation) == 1
            if episode_start is not None and episode_start[0]:
                self.reset()
        batch = np.asarray(observation)
        allowed: Any = [None] * len(batch) if action_masks is None else action_masks
        outputs = np.array([self.call(self.newest(one[None]), mask) for one, mask in zip(batch, allowed, strict=True)])
        return (outputs if self.policy.action_shape is None else self.policy.to_actions(outputs)), state


@dataclass(frozen=True)
class Footprint:
    """
    What a compiled policy takes, in bytes.

    :param target: the processor
    :param code: its code, without the compiler's own routines (of 64-bit products, floats)
    :param constants: its arrays, and the table of its layers
    :param state: what it keeps between two actions
    :param stack: the deepest stack of an action; None where the compiler does not tell
    :param instructions: instructions of one action; None where they were not counted
    """

    target: str
    code: int
    constants: int
    state: int
    stack: int | None
    instructions: int | None = None


def deepest_stack(graph: str) -> int | None:
    """
    :param graph: what the compiler writes with ``-fcallgraph-info=su``
    :return: bytes of the deepest chain of calls from a function of ``policy.h``
    """
    own = {
        title: int(size)
        for title, size in re.findall(r'title: "([^"]+)" label: "[^"]*?\\n(\d+) bytes \(static\)', graph)
    }
    calls = re.findall(r'sourcename: "([^"]+)" targetname: "([^"]+)"', graph)

    def depth(title: str) -> int:
        return own.get(title, 0) + max((depth(callee) for caller, callee in calls if caller == title), default=0)

    return max((depth(title) for title in own if title.startswith("policy_act")), default=None)


def measure(folder: Path, target: str, compiler: str | Path, size: str | Path, flags: Sequence[str] = ()) -> Footprint:
    """
    :param folder: folder with ``policy.c``
    :param target: name of the processor
    :param compiler: the compiler
    :param size: the program that tells the sections of object files
    :param flags: arguments of the compiler that choose the processor
    :return: what the policy takes there
    :raises BuildError: a program fails
    """
    with tempfile.TemporaryDirectory() as name:
        build = Path(name)
        is_gcc = "Free Software Foundation" in run_tool(compiler, "--version", folder=build)
        own = _SIZES if is_gcc else _SIZES[:-1]
        run_tool(compiler, *flags, *own, "-c", folder.resolve() / "policy.c", "-o", "policy.o", folder=build)
        graphs = [path.read_text() for path in build.glob("*.ci")]
        lines = run_tool(size, "-A", "policy.o", folder=build).splitlines()
    sections = [line.split()[:2] for line in lines if line.startswith(".")]

    def total(kinds: Sequence[str]) -> int:
        # ".data.rel.ro" is a constant, and no ".data".
        mine = [
            (name, int(size))
            for name, size in sections
            if any(name == kind or name.startswith(f"{kind}.") for kind in kinds)
        ]
        return sum(size for name, size in mine if kinds is _CONSTANTS or not name.startswith(".data.rel.ro"))

    return Footprint(
        target, total(_CODE), total(_CONSTANTS), total(_STATE), deepest_stack(graphs[0]) if graphs else None
    )
