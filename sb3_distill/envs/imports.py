"""What the files of a run may import. Importing runs code, so a name in a file is no reason to."""

import importlib
import re
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, find_highest_version, get_env_id, parse_env_id

# Packages whose wrappers and environments a run may name. Users add theirs with `trust_packages`.
_TRUSTED = {"gymnasium", "stable_baselines3", "sb3_contrib", "rl_zoo3", "sb3_distill"}
# Stands in _TRUSTED for every package
_ANY = "*"
# Packages that the user has named in this process: only of these are functions called
_NAMED: set[str] = set()
# A text that gymnasium would take for the id of an environment in a module; no URL, no path
_MODULE_ID = re.compile(r"[A-Za-z_][\w.]*:(?![/\\]).")
# Wrappers and callbacks that write files wherever their arguments say
_WRITERS = ("Monitor", "RecordVideo", "VecMonitor", "VecVideoRecorder", "CheckpointCallback", "EvalCallback")
# Modules under the names that they have today
_RENAMED = {"gym.": "gymnasium.", "utils.wrappers.": "rl_zoo3.wrappers."}


def trust_packages(packages: Sequence[str], anything: bool = False) -> None:
    """
    Import packages, as the Zoo does for ``--gym-packages``, and allow runs to name what is in them, for the rest of
    the process.

    :param packages: names of modules
    :param anything: allow runs to name, and so to import, every installed module
    :raises ValueError: a package cannot be imported
    """
    for package in packages:
        _import(package)
        _TRUSTED.add(package.partition(".")[0])
        _NAMED.add(package.partition(".")[0])
    if anything:
        _TRUSTED.add(_ANY)
        _NAMED.add(_ANY)


def _named_packages() -> set[str]:
    """
    The packages that the user has named: to ``trust_packages``, or on the command line of this process, which the
    processes of environments have from their parent, and the Zoo's ``enjoy`` keeps to itself.
    """
    named, is_package = set(_NAMED), False
    for word in sys.argv[1:]:
        if word.startswith("-"):
            option, _, word = word.partition("=")
            is_package = option == "--gym-packages"
        if is_package and word:
            named.add(word.partition(".")[0])
    return named


def _import(package: str) -> None:
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise ValueError(
            f"--gym-packages: {package} cannot be imported: {error}. Install it, or put its folder on PYTHONPATH."
        ) from error


def _is_trusted(module: str) -> bool:
    """Whether naming something in a module runs no code that the user does not know."""
    # Command lines begin to run when they are imported.
    if module.endswith(".__main__"):
        return False
    return module in sys.modules or not _TRUSTED.isdisjoint((_ANY, module.partition(".")[0]))


def import_trusted(packages: Sequence[str]) -> None:
    """
    Import what a run names and the user trusts already. Nothing becomes trusted because a run names it.

    :param packages: modules that a run imported first
    :raises ValueError: one of them cannot be imported
    """
    for package in packages:
        if _is_trusted(package):
            _import(package)


def find_wrapper(name: str, base: type, where: str, renamed: bool = True) -> Any:
    """
    :param name: full name of a wrapper class, or of a callback's
    :param base: the class from which it must inherit
    :param where: the place of the name, for the message
    :param renamed: whether names of earlier versions stand for those of today
    :return: the class
    :raises ValueError: its package is not trusted; there is no such wrapper; or it writes files
    """
    for old, new in _RENAMED.items():
        if renamed and name.startswith(old):
            name = name.replace(old, new, 1)
    module, _, class_name = name.rpartition(".")
    if not module:
        raise ValueError(f"{where} names the wrapper {name} without its package: write package.module.{name}.")
    if not _is_trusted(module):
        package = module.partition(".")[0]
        raise ValueError(
            f"{where} names the wrapper {name}. Importing {package} runs its code: if you trust it, pass "
            f"--gym-packages {package} (in Python: import it first)."
        )
    try:
        found = getattr(importlib.import_module(module), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{where} names the wrapper {name}, which cannot be imported: {error}.") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ValueError(f"{where} names {name}, which is not a {base.__module__.partition('.')[0]} {base.__name__}.")
    if class_name in _WRITERS and not _is_trusted(_ANY):
        raise ValueError(
            f"{where} names the wrapper {name}, which writes files: if you trust the run, pass --allow-import."
        )
    return found


def find_function(name: str, where: str, in_python: str = "pass the function itself") -> Any:
    """
    :param name: ``package.module:function``
    :param where: the place of the name, for the message
    :param in_python: what a user of Python passes instead
    :return: the function
    :raises ValueError: the user has not named its package, or there is no such function
    """
    module, colon, function = name.partition(":")
    if not colon:
        raise ValueError(f"{where} must be package.module:function, not {name!r}.")
    package = module.partition(".")[0]
    if _named_packages().isdisjoint((_ANY, package)):
        raise ValueError(
            f"{where} is {name}. Importing {package} runs its code: if you trust it, pass --gym-packages {package} (in "
            f"Python: {in_python})."
        )
    try:
        found = getattr(importlib.import_module(module), function)
    except Exception as error:
        # Importing runs the user's code, which can raise anything.
        raise ValueError(f"{where} is {name}, which cannot be imported ({type(error).__name__}: {error}).") from error
    if not callable(found):
        raise ValueError(f"{where} is {name}, which is no function (type {type(found).__name__}).")
    return found


def check_env_id(env_id: str, where: str) -> None:
    """
    :param env_id: an id that the files of a run name; with ``module:``, gymnasium would import the module
    :param where: the place of the id, for the message
    :raises ValueError: the module is not trusted
    """
    module, colon, _ = env_id.partition(":")
    if colon and not _is_trusted(module):
        raise ValueError(
            f"{where} names the environment {env_id}. Importing {module} runs its code: if you trust it, pass "
            f"--gym-packages {module} (in Python: import it first)."
        )


def check_env_kwargs(env_kwargs: Any, where: str) -> None:
    """
    :param env_kwargs: arguments of an environment that the files of a run state; a multi-task environment takes ids
    :param where: the place of the arguments, for the message
    :raises ValueError: one of them names an environment of a module that is not trusted
    """
    left = [env_kwargs]
    while left:
        value = left.pop()
        if isinstance(value, str) and _MODULE_ID.match(value):
            check_env_id(value, f"{where}: env_kwargs")
        elif isinstance(value, Mapping):
            left += value.values()
        elif isinstance(value, (list, tuple, set)):
            left += value


def registered_spec(env_id: str) -> EnvSpec:
    """
    :param env_id: a registered environment
    :return: how it is registered, also if the Zoo has registered it
    :raises gymnasium.error.Error: it is not registered
    """
    try:
        return gym.spec(env_id)
    except gym.error.Error:
        # The Zoo knows some environments of its own and those of packages that are installed.
        importlib.import_module("rl_zoo3.import_envs")
        return gym.spec(env_id)


# Modules of environments -> package that they import, and its name: in lower case, that of our extra
_NEEDS = {
    "gymnasium.envs.box2d": ("Box2D", "Box2D"),
    "gymnasium.envs.mujoco": ("mujoco", "MuJoCo"),
    "minatar.gym": ("minatar", "MinAtar"),
}


def _later_version(env_id: str) -> str | None:
    """The latest version of an environment, if it is later than this one."""
    try:
        namespace, name, version = parse_env_id(env_id)
    except gym.error.Error:
        return None
    latest = find_highest_version(namespace, name)
    if latest is None or version is None or latest <= version:
        return None
    return get_env_id(namespace, name, latest)


def why_not_made(env_id: str) -> str | None:
    """
    :param env_id: an environment
    :return: why it cannot be made here, and what to do; None if nothing is known to be in its way
    """
    spec = gym.registry.get(env_id)
    entry_point = "" if spec is None else str(spec.entry_point)
    if spec is None or "_raise_mujoco_py_error" in entry_point:
        today = _later_version(env_id)
        if today is not None:
            return (
                f"There is no {env_id} any more. Its agents can play {today}, if it has their observations: name that "
                "environment with --env (in Python, env_id=)."
            )
    for module, (package, name) in _NEEDS.items():
        if entry_point.startswith(module) and find_spec(package) is None:
            return f"{env_id} needs {name}, which is not installed: pip install 'sb3-distill[{name.lower()}]'."
    return None
