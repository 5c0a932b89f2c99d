"""Finds the named crash points in the source: every transaction's two, and those of a send."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import interlock

_ROOMS = ("calls", "runtime")
_TRANSACTIONS = {"run", "transact", "transaction", "_write"}
_COMMITS = {"commit", "_commit"}


def points() -> frozenset[str]:
    """Return every point that the rooms of calls and runs name."""
    package = Path(interlock.__file__).parent
    sources = (path for room in _ROOMS for path in sorted((package / room).rglob("*.py")))
    return frozenset(point for path in sources for point in points_in(path.read_text("utf-8")))


def points_in(source: str) -> Iterator[str]:
    """Yield the points that a module's text names."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        called = node.func.attr
        if called == "reach":
            yield from _texts(node.args[:1])
        if called in _TRANSACTIONS:
            yield from _both(_texts(node.args[:1]))
        if called in _COMMITS:
            yield from _both(_texts([k.value for k in node.keywords if k.arg == "kind"]))


def _texts(nodes: list[ast.expr]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _both(names: Iterator[str]) -> Iterator[str]:
    for name in names:
        yield from (f"{name}.before", f"{name}.after")
