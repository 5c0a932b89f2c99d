"""The public Python API: what `import interlock` gives, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import interlock
from interlock.app import Interlock
from interlock.config import Config
from interlock.domain.canonical import Json
from interlock.domain.errors import InterlockError
from interlock.tools.functions import python_function


def _loaded_after(code: str) -> set[str]:
    """Return the modules that a fresh interpreter has loaded after running `code`."""
    program = f"import sys; before = set(sys.modules); {code}; print(*(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=50
    )
    return set(done.stdout.split())


def test_public_names_are_those_of_their_modules() -> None:
    """A public name is the thing itself, not a copy or a wrapper."""
    names = ("Config", "Interlock", "InterlockError", "Json", "python_function")

    assert [Config, Interlock, InterlockError, Json, python_function] == [
        getattr(interlock, name) for name in names
    ]


def test_only_public_names_are_given() -> None:
    """`dir` lists the public names; any other is refused, whatever the modules hold."""
    assert interlock.__all__ == dir(interlock)
    with pytest.raises(AttributeError, match="has no public name `replace`"):
        getattr(interlock, "replace")  # noqa: B009  # mypy knows that it does not exist


def test_import_is_light() -> None:
    """`import interlock` loads none of our rooms and no framework."""
    loaded = _loaded_after("import interlock")

    assert {"interlock"} == {name for name in loaded if not name.startswith("_")} & {
        *(name for name in loaded if name.startswith("interlock")),
        *("pydantic", "sqlalchemy", "fastapi", "dbos", "asyncio"),
    }


def test_name_loads_what_it_needs_alone() -> None:
    """Who writes a tool function loads neither the database nor the server."""
    loaded = _loaded_after("from interlock import EffectContext, python_function")

    assert "interlock.tools.functions" in loaded
    assert set() == {"sqlalchemy", "fastapi", "dbos", "interlock.app"} & loaded
