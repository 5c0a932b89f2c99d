"""The documented surface: everything that is API is documented, every link and promise holds."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

import interlock
from interlock.config import CONFIG_VARIABLE, PREFIX, Config, ModelSettings, SecretSettings
from interlock.domain.trace import SpanKind
from interlock.observe.semconv import ATTRIBUTES

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "interlock"
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
PAGES = [*sorted(DOCS.rglob("*.md")), *sorted(ROOT.glob("*.md"))]
PROMISES = [DOCS / "guarantees.md", DOCS / "threatmodel.md"]

# Where codes are written down; what looks like one and is not: topics, events, kinds of evidence.
CODED = (
    "domain/errors.py",
    "domain/plan.py",
    "agents/*.py",
    "calls/*.py",
    "policy/*.py",
    "runtime/**/*.py",
)
NOT_CODES = {"call.late", "model.request", "owner.lost", "recheck.due"}
NOT_CODES |= {
    "session.call",
    "session.model",
    "gate.ask",
    "run.park",
    "run.pause",
    "run.resume",
    "run.wait",
}
# Made of parts, or raised at an edge.
OTHER_CODES = {"effect.absent", "effect.abandoned", "http", "refused"}
NAMED_CALLS = {"commit", "reach", "run", "transact", "transaction"}
LOG_CALLS = {"critical", "debug", "error", "exception", "info", "warning"}

CODE_ARGUMENTS = {"code", "error_code"}
CODE = re.compile(r"(?!interlock)[a-z_]+\.[a-z_]+")

LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
SNIPPET = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def _rows(page: Path) -> dict[str, tuple[str, ...]]:
    """Return the cells of each table row whose first cell is a name in backticks."""
    lines = page.read_text(encoding="utf-8").splitlines()
    cells = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]
    return {row[0].strip("`"): row[1:] for row in cells if re.fullmatch(r"`[^`]+`", row[0])}


def _codes(path: Path) -> Iterator[str]:
    """Yield the error codes that a module writes down: dotted texts that name no transaction."""
    names: set[ast.AST] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            names |= set(node.args[:1]) if called in NAMED_CALLS | LOG_CALLS else set()
            names |= {keyword.value for keyword in node.keywords if keyword.arg == "kind"}
            written = [keyword.value for keyword in node.keywords if keyword.arg in CODE_ARGUMENTS]
            yield from _texts(written)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            yield from _texts([node.value] if ast.unparse(target) == "code" else [])
    dotted = _texts(node for node in ast.walk(tree) if node not in names)
    yield from (text for text in dotted if CODE.fullmatch(text) and text not in NOT_CODES)


def _texts(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _default(field: object) -> object:
    default = getattr(field, "default", MISSING)
    return str(default).lower() if isinstance(default, bool) else default


def _anchors(page: Path) -> set[str]:
    lines = page.read_text(encoding="utf-8").splitlines()
    titles = [line.lstrip("#").strip().lower() for line in lines if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


def _tests_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


def test_every_error_code_is_documented() -> None:
    """Each code that the source writes down has a row, and no row is of a code that is gone."""
    written = {code for pattern in CODED for path in PACKAGE.glob(pattern) for code in _codes(path)}

    assert written - {"*"} | OTHER_CODES == set(_rows(REFERENCE / "errors.md"))


def test_every_setting_is_documented() -> None:
    """Each key of settings and models has a row with its default, and its variable."""
    rows = _rows(REFERENCE / "settings.md")

    kinds = (Config, SecretSettings, ModelSettings)
    keys = {field.name for kind in kinds for field in fields(kind)} - {"name"}
    variables = {CONFIG_VARIABLE, "INTERLOCK_AGENT_KEY", "INTERLOCK_TOKEN", "INTERLOCK_URL"}
    assert keys | variables == set(rows)
    for field in fields(Config):
        default, _, variable, _ = rows[field.name]
        assert variable.strip("`").startswith(f"{PREFIX}{field.name.upper()}")
        if field.default not in (None, MISSING):
            assert f"`{_default(field)}`" == default
    for field in fields(ModelSettings):
        if isinstance(field.default, bool):
            assert f"`{_default(field)}`" == rows[field.name][0]
    for field in fields(SecretSettings):
        if field.default is not None:
            assert f"`{_default(field)}`" == rows[field.name][0]


def test_every_span_and_attribute_is_documented() -> None:
    """Each kind of span and each attribute has a row, with the convention it is taken from."""
    rows = _rows(REFERENCE / "spans.md")
    kinds = {kind.value for kind in SpanKind}

    # One name is a kind and an attribute: the row of the attribute counts, the kind has one too.
    assert kinds | set(ATTRIBUTES) == set(rows)
    assert dict(ATTRIBUTES) == {name: rows[name][0] for name in ATTRIBUTES}


def test_every_public_name_is_documented() -> None:
    """Each name of `interlock.__all__` has a row, and no other name has one."""
    assert sorted(interlock.__all__) == sorted(_rows(REFERENCE / "api.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_lead_somewhere(page: Path) -> None:
    """Each link of a page that stays in the repository leads to a file, and to its heading."""
    broken = []
    for _, target in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in _anchors(file)):
            broken.append(target)

    assert [] == broken


@pytest.mark.parametrize("page", PROMISES, ids=lambda page: page.stem)
def test_every_promise_is_shown_by_a_test(page: Path) -> None:
    """Each line of the table links to tests, and each of them exists under its name."""
    lines = page.read_text(encoding="utf-8").splitlines()
    promises = [line for line in lines if line.startswith("|")][2:]

    untested = [line for line in promises if not LINK.search(line)]
    missing = [
        name
        for line in promises
        for name, target in LINK.findall(line)
        if name not in _tests_in(page.parent / target)
    ]
    assert ([], []) == (untested, missing)


@pytest.mark.parametrize(
    ("page", "code"),
    [
        pytest.param(page, code, id=f"{page.relative_to(ROOT).as_posix()}-{number}")
        for page in PAGES
        for number, code in enumerate(SNIPPET.findall(page.read_text(encoding="utf-8")), 1)
    ],
)
def test_snippets_run(page: Path, code: str) -> None:
    """Each Python example of a page runs as it stands."""
    # `eval` and `exec` are banned in what is shipped; here is what people would paste.
    exec(compile(code, str(page), "exec"), {"__name__": page.stem})  # noqa: S102
