"""The shape of the repository: sizes, names, docstrings, and nothing of a developer's machine."""

from __future__ import annotations

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

import interlock

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "interlock"
TESTS = ROOT / "tests"

SOURCE_LINES = 600
SOURCE_LINES_MOST = 400
TEST_LINES = 800
FUNCTION_LINES_MOST = 40
MOST = 0.9
ROOM_MODULES = 12
PUBLIC_NAMES = 25
# One module per noun; migrations grow by one per release.
WIDE_ROOMS = {"domain", "store", "store/migrations/versions"}
EMPTY_NAMES = {"base", "common", "helpers", "misc", "utils"}

# What may stand in a file of the repository only if someone's machine or mirror is meant.
FOREIGN = re.compile(
    r"files\.pythonhosted\.org|pypi\.org/simple|registry\.npmjs\.org|"
    r"(?<![\w./~-])/(home|Users|root|work)/\w|--(extra-)?index-url[ =]\S*:"
)
TEXT_ENDINGS = {".cedar", ".css", ".html", ".ini", ".js", ".json", ".md", ".py", ".toml", ".txt"}
TEXT_ENDINGS |= {".yaml", ".yml", ""}


def _sources(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines())


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node for node in ast.walk(_tree(path)) if isinstance(node, kinds)]


def _length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def _rooms() -> list[Path]:
    return [path.parent for path in _sources(PACKAGE) if path.name == "__init__.py"]


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _repository_files() -> list[Path]:
    """Return what git knows or would add; files that are ignored are nobody's business."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_no_file_is_too_long() -> None:
    """No source file has over 600 lines, no test file over 800."""
    long = [_name(path) for path in _sources(PACKAGE) if _lines(path) > SOURCE_LINES]
    long += [_name(path) for path in _sources(TESTS) if _lines(path) > TEST_LINES]

    assert [] == long


def test_most_source_files_are_short() -> None:
    """At least nine source files of ten have under 400 lines."""
    sizes = [_lines(path) for path in _sources(PACKAGE)]

    assert sum(size < SOURCE_LINES_MOST for size in sizes) >= MOST * len(sizes)


def test_most_functions_are_short() -> None:
    """At least nine functions of ten have under 40 lines."""
    lengths = [_length(function) for path in _sources(PACKAGE) for function in _functions(path)]

    assert sum(length < FUNCTION_LINES_MOST for length in lengths) >= MOST * len(lengths)


def test_rooms_are_small() -> None:
    """A room has at most 12 modules, but for those that have one for each noun."""
    crowded = {
        room.relative_to(PACKAGE).as_posix(): count
        for room in _rooms()
        if (count := len(list(room.glob("*.py"))) - 1) > ROOM_MODULES
    }

    assert {} == {name: count for name, count in crowded.items() if name not in WIDE_ROOMS}


def test_room_is_described_by_its_init_and_nothing_else() -> None:
    """The `__init__.py` of a room is a docstring; who needs a name imports its module."""
    full = [
        _name(room / "__init__.py")
        for room in _rooms()
        if room != PACKAGE and len(_tree(room / "__init__.py").body) != 1
    ]

    assert [] == full


def test_no_module_has_an_empty_name() -> None:
    """A module is named for what it is responsible for."""
    folders = [PACKAGE, TESTS, ROOT / "scripts", ROOT / "examples", ROOT / "proofs"]
    found = [path for folder in folders for path in _sources(folder)]

    assert [] == [_name(path) for path in found if {path.stem, path.parent.name} & EMPTY_NAMES]


def test_public_names_are_few_and_sorted() -> None:
    """`interlock.__all__` is the public list: sorted, at most 25 names, and all exist."""
    names = interlock.__all__

    assert sorted(names) == names
    assert len(names) <= PUBLIC_NAMES
    assert [] == [name for name in names if not hasattr(interlock, name)]


def test_every_module_says_what_it_is_responsible_for() -> None:
    """Each source module starts with a docstring."""
    silent = [_name(path) for path in _sources(PACKAGE) if ast.get_docstring(_tree(path)) is None]

    assert [] == silent


def test_every_test_says_what_is_promised() -> None:
    """Each test function has a docstring of its own."""
    silent = [
        f"{_name(path)}:{function.lineno}"
        for path in _sources(TESTS)
        for function in _functions(path)
        if function.name.startswith("test_") and ast.get_docstring(function) is None
    ]

    assert [] == silent


def test_tests_stand_where_the_tested_module_stands() -> None:
    """In the folder of a room, `test_<module>.py` tests a module that the room has."""
    stray = []
    for room in (path for path in PACKAGE.iterdir() if (path / "__init__.py").exists()):
        for path in (TESTS / room.name).rglob("test_*.py"):
            relative = path.parent.relative_to(TESTS) / path.stem.removeprefix("test_")
            if not (PACKAGE / f"{relative}.py").exists() and not (PACKAGE / relative).is_dir():
                stray.append(_name(path))

    assert [] == stray


def test_nothing_names_a_machine_or_a_mirror() -> None:
    """No file holds the address of a package download or a path of a developer's machine."""
    me = Path(__file__)
    found = [
        f"{_name(path)}: {match.group()}"
        for path in _repository_files()
        if path.suffix in TEXT_ENDINGS
        and path != me
        and (match := FOREIGN.search(path.read_text(errors="replace")))
    ]

    assert [] == found
