"""Adds the algorithms of ``sb3_distill`` to the RL Baselines3 Zoo.

The Zoo has no plugin mechanism: it reads the choices of ``--algo`` from a dictionary before it imports any package that
the user names. Therefore ``sb3_distill.pth`` (from Python 3.15 on ``sb3_distill.start``, PEP 829) calls :func:`install`
at every start of the interpreter. To keep this fast, this module is outside the package, imports only the standard
library, and only adds one finder to ``sys.meta_path``. Everything else happens when the Zoo is imported.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # importing `typing` would take longer than the rest of this module
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

# Module of the Zoo -> function of sb3_distill.zoo.registration that adds our algorithms to it
_REGISTER = {
    "rl_zoo3.utils": "register_algorithms",
    "rl_zoo3.hyperparams_opt": "register_samplers",
    "rl_zoo3.exp_manager": "register_experiments",
}


def install() -> None:
    """Register our algorithms with the Zoo, now or when it is imported, unless ``SB3_DISTILL_ZOO=0`` is set."""
    if os.environ.get("SB3_DISTILL_ZOO") != "0":
        add_finder()


def add_finder() -> None:
    """Register our algorithms with the Zoo's modules: now if they are loaded, otherwise after their import."""
    if any(isinstance(finder, ZooFinder) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, ZooFinder())
    for name in _REGISTER:
        if name in sys.modules:
            _register(sys.modules[name])


class ZooFinder:
    """Finder that leaves the search to the other finders, and registers our algorithms after a Zoo module has run."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """
        Find a module of the Zoo.

        :param fullname: dotted name of the module
        :param path: ``__path__`` of its package
        :param target: the module, when it is reloaded
        :return: the spec that another finder has for it; ``None`` for modules to which we add nothing
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
    # Change exec_module of the original loader instead of replacing the loader: runpy, inspect and importlib.resources
    # use other methods of it.
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
        # The Zoo must keep working if our package is broken. Remove the finder, so that the warning appears only once.
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, ZooFinder)]
        import warnings

        warnings.warn(
            "The RL Baselines3 Zoo continues without the algorithms of sb3_distill, which could not be registered: "
            f"{type(error).__name__}: {error}. Reinstall sb3-distill, or set SB3_DISTILL_ZOO=0 to silence this.",
            RuntimeWarning,
        )
