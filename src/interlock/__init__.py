"""Control plane for AI agents; the names listed here are the public Python API, no others.

Each is loaded when it is first used, so that `import interlock` itself costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = [
    "Config",
    "ConfigError",
    "ConflictError",
    "EffectContext",
    "ForbiddenError",
    "InputError",
    "Interlock",
    "InterlockError",
    "Json",
    "ManifestError",
    "ModelSettings",
    "NotFoundError",
    "PolicyError",
    "Principal",
    "PrincipalKind",
    "Problem",
    "PythonFunction",
    "Role",
    "Run",
    "RunState",
    "UnavailableError",
    "python_function",
]

if TYPE_CHECKING:
    from interlock.app import Interlock
    from interlock.config import Config, ModelSettings
    from interlock.domain.canonical import Json
    from interlock.domain.errors import (
        ConfigError,
        ConflictError,
        ForbiddenError,
        InputError,
        InterlockError,
        ManifestError,
        NotFoundError,
        PolicyError,
        Problem,
        UnavailableError,
    )
    from interlock.domain.principal import Principal, PrincipalKind, Role
    from interlock.domain.run import Run, RunState
    from interlock.tools.functions import EffectContext, PythonFunction, python_function
else:
    from importlib import import_module

    # In the order of their cost: a name is taken from the first module that has it.
    _HOMES = ("domain.errors", "domain.principal", "domain.run", "config", "tools.functions", "app")

    def __getattr__(name: str) -> object:
        """Load a public name (PEP 562)."""
        for home in _HOMES if name in __all__ else ():
            module = import_module(f"interlock.{home}")
            if name in vars(module):
                return vars(module)[name]
        raise AttributeError(f"module `interlock` has no public name `{name}`")

    def __dir__() -> list[str]:
        """List the public names."""
        return __all__
