"""Makes the RL Baselines3 Zoo know the algorithms of ``sb3_distill``.

The Zoo has no plugin mechanism: the choices of its ``--algo`` are read from a dictionary before any package that the
user names is imported. So ``sb3_distill.pth`` (from Python 3.15 on ``sb3_distill.start``, PEP 829) calls
:func:`install` at every start of the interpreter. That is why this module stands outside the package, imports the
standard library alone, and does nothing but put one finder in ``sys.meta_path``: the rest happens if the Zoo is
imported, and when it is.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # importing `typing` would take longer than all of this module
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

# Module of the Zoo -> function of sb3_distill.zoo.registration that adds our algorithms to it
_REGISTER = {
    "rl_zoo3.utils": "register_algorithms",
    "rl_zoo3.hyperparams_opt": "register_samplers",
    "rl_zoo3.exp_manager": "register_default_configs",
}


def install() -> None:
    """Register our algorithms with the Zoo, now or when it is imported, unless ``SB3_DISTILL_ZOO=0`` says not to."""
    if os.environ.get("SB3_DISTILL_ZOO") != "0":
        add_finder()


def add_finder() -> None:
    """Register our algorithms with the modules of the Zoo that are loaded, and with the others once they are."""
    if any(isinstance(finder, ZooFinder) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, ZooFinder())
    for name in _REGISTER:
        if name in sys.modules:
            _register(sys.modules[name])


class ZooFinder:
    """Leaves the finding to the other finders, and has our algorithms registered after a module of the Zoo has run."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """
        Find a module of the Zoo.

        :param fullname: dotted name of the module
        :param path: ``__path__`` of its package
        :param target: the module, when it is reloaded
        :return: the spec that another finder has for it, ``None`` for every module that we do not add to
        """
        if fullname not in _REGISTER:
            return None
        for finder in sys.meta_path:
            find_spec = None if finder is self else getattr(finder, "find_spec", None)
            spec = find_spec(fullname, path, target) if find_spec else None
            if spec is not None:
                _register_after(spec)
                return spec
        return None


def _register_after(spec: ModuleSpec) -> None:
    # The module keeps the loader that it would have had, so that runpy, inspect and importlib.resources, which ask
    # loaders for more than importing, see no difference.
    loader = spec.loader

    def exec_module(module: ModuleType) -> None:
        del loader.exec_module  # type: ignore[union-attr]
        loader.exec_module(module)  # type: ignore[union-attr]
        _register(module)

    if hasattr(loader, "exec_module"):
        loader.exec_module = exec_module  # type: ignore[union-attr, method-assign]


def _register(module: ModuleType) -> None:
    try:
        from sb3_distill.zoo import registration

        getattr(registration, _REGISTER[module.__name__])(module)
    except Exception as error:
        # The Zoo must work without us. With no finder left, the modules that follow do not repeat the warning.
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, ZooFinder)]
        import warnings

        warnings.warn(
            "The RL Baselines3 Zoo goes on without the algorithms of sb3_distill, which could not be registered: "
            f"{type(error).__name__}: {error}. Reinstall sb3-distill, or set SB3_DISTILL_ZOO=0 to silence this.",
            RuntimeWarning,
        )
