"""Project files as text: which files of a folder belong, and strict YAML with line numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from interlock.domain.canonical import MAX_DEPTH, MAX_SAFE_INTEGER, Json, JsonObject
from interlock.domain.errors import InputError, ManifestError, Problem

PROJECT_FILE = "project.yaml"
FOLDERS: Mapping[str, tuple[str, ...]] = {
    "systems": (".yaml",),
    "servers": (".yaml",),
    "tools": (".yaml",),
    "agents": (".yaml", ".md"),
    "budgets": (".yaml",),
    "workflows": (".yaml",),
    "policies": (".cedar",),
    "schemas": (".json",),
    "functions": (".py",),
}
"""The folders of a project that are read, with all below them, and the endings that count."""
MAX_FILE_BYTES = 1024 * 1024
MAX_FILES = 5_000

Place = tuple[str | int, ...]
"""Keys and indexes that lead from a document to a value in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One YAML document: its content, and the line of each place in it."""

    path: str
    content: JsonObject
    lines: Mapping[Place, int] = field(repr=False)

    def problem(self, place: Place, message: str, fix: str | None = None) -> Problem:
        """Return a problem at the line of the nearest place that the document has."""
        while place and place not in self.lines:
            place = place[:-1]
        return Problem(path=self.path, line=self.lines[place], message=message, fix=fix)


def read_folder(root: Path) -> dict[str, str]:
    """Read a project folder: texts by path relative to `root`, with forward slashes.

    Symbolic links are not followed, hidden files are left out.

    Raises:
        ManifestError: no `project.yaml`, or a file is unreadable, not UTF-8 or too large.
    """
    if not (root / PROJECT_FILE).is_file():
        message = f"the folder `{root}` has no project file"
        fix = "go to the project's folder, or make a project with `interlock init`"
        raise ManifestError((Problem(path=PROJECT_FILE, line=None, message=message, fix=fix),))
    texts: dict[str, str] = {}
    problems: list[Problem] = []
    for path in sorted([root / PROJECT_FILE, *_project_files(root)]):
        name = path.relative_to(root).as_posix()
        try:
            if path.stat().st_size > MAX_FILE_BYTES or len(texts) >= MAX_FILES:
                message = f"at most {MAX_FILES} files of {MAX_FILE_BYTES} bytes are read"
                problems.append(Problem(path=name, line=None, message=message))
            else:
                texts[name] = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            message = f"cannot be read: {str(error).lower()}"
            problems.append(Problem(path=name, line=None, message=message))
    if problems:
        raise ManifestError(tuple(problems))
    return texts


def _project_files(root: Path) -> Iterator[Path]:
    for folder, endings in FOLDERS.items():
        for path in (root / folder).rglob("*"):
            is_hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
            if path.suffix in endings and path.is_file() and not path.is_symlink() | is_hidden:
                yield path


def parse(path: str, text: str) -> list[Document]:
    """Parse the documents of one YAML 1.2 file; empty ones are left out.

    Only what JSON can hold is accepted: no anchors, tags, duplicate keys, keys that are not texts,
    infinities or dates (a date is a text).

    Raises:
        ManifestError: carries the one problem that stopped the parser.
    """
    try:
        nodes = list(YAML(typ="safe", pure=True).compose_all(text))
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        _refuse(path, line, f"is not YAML: {error.problem or error.context}")
    except (YAMLError, RecursionError, ValueError) as error:
        _refuse(path, None, f"is not YAML: {str(error).splitlines()[0].lower()}")
    documents: list[Document] = []
    for node in nodes:
        lines: dict[Place, int] = {}
        content = _Reader(path, lines).read(node, ())
        if isinstance(content, dict):
            documents.append(Document(path=path, content=content, lines=lines))
        elif content is not None:
            _refuse(path, lines[()], "a project file holds keys with values")
    return documents


def _refuse(path: str, line: int | None, message: str) -> NoReturn:
    raise ManifestError((Problem(path=path, line=line, message=message),))


class _Reader:
    """Turns nodes into JSON and notes the line of each."""

    def __init__(self, path: str, lines: dict[Place, int]) -> None:
        self._path = path
        self._lines = lines

    def read(self, node: Node, place: Place) -> Json:
        line = node.start_mark.line + 1
        self._lines.setdefault(place, line)
        if node.anchor is not None:
            _refuse(self._path, line, "anchors and aliases are not accepted")
        if len(place) > MAX_DEPTH:
            _refuse(self._path, line, f"is nested deeper than {MAX_DEPTH} levels")
        if str(node.tag).removeprefix("tag:yaml.org,2002:") not in _TAGS:
            _refuse(self._path, line, f"the tag `{node.tag}` is not accepted")
        if isinstance(node, MappingNode):
            return self._mapping(node, place)
        if isinstance(node, SequenceNode):
            return [self.read(item, (*place, index)) for index, item in enumerate(node.value)]
        # INVARIANT: YAML has three kinds of nodes.
        assert isinstance(node, ScalarNode)
        if node.style is not None:
            return str(node.value)
        try:
            return scalar(str(node.value))
        except InputError as error:
            _refuse(self._path, line, error.message)

    def _mapping(self, node: MappingNode, place: Place) -> JsonObject:
        content: JsonObject = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = self.read(key_node, (*place, ""))
            del self._lines[*place, ""]
            if not isinstance(key, str) or key == "<<":
                _refuse(self._path, line, f"the key `{key_node.value}` is not a text")
            if key in content:
                _refuse(self._path, line, f"the key `{key}` is there twice")
            # A value may start lines below its key; people look for the key.
            self._lines[*place, key] = line
            content[key] = self.read(value_node, (*place, key))
        return content


# What the parser gives to plain nodes; a date is read as a text all the same.
_TAGS = frozenset({"map", "seq", "str", "int", "float", "bool", "null", "timestamp"})
_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: Mapping[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def scalar(text: str) -> Json:
    """Read a plain scalar by the core schema (YAML 1.2.2, section 10.3.2), numbers in decimal only.

    >>> [scalar(text) for text in ("yes", "12", "1.5", "true", "2026-01-01", "~")]
    ['yes', 12, 1.5, True, '2026-01-01', None]
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        # The length is bounded first: reading a very long number takes long.
        if len(text) > len(str(MAX_SAFE_INTEGER)) + 1 or abs(int(text)) > MAX_SAFE_INTEGER:
            msg = f"the integer `{text[:24]}` is beyond 2^53"
            raise InputError(msg)
        return int(text)
    if _SPECIAL.fullmatch(text) or (_FLOAT.fullmatch(text) and math.isinf(float(text))):
        msg = f"`{text[:24]}` is not a finite number"
        raise InputError(msg)
    return float(text) if _FLOAT.fullmatch(text) else text
