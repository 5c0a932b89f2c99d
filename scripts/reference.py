"""Writes the reference pages that follow from the code: commands and REST routes.

python scripts/reference.py           write docs/reference/cli.md and rest.md
python scripts/reference.py --check   only say whether they are current
"""

from __future__ import annotations

import inspect
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import get_args

import typer
from fastapi.dependencies.models import Dependant
from fastapi.routing import RouteContext, iter_route_contexts
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from interlock.app import Interlock
from interlock.cli.main import app as cli
from interlock.config import Config
from interlock.domain.principal import Role
from interlock.serve.http import create_app

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference"
_CLI = """\
# Commands

<!-- written by scripts/reference.py -->

`interlock` asks the server that runs for the data folder. Without one it opens the data itself, and
nothing works on runs. The data folder is `.interlock`, see [settings](settings.md).

- `INTERLOCK_TOKEN` acts by that key instead of as this machine's user, who may do all but approve.
- `INTERLOCK_URL` (with a token) asks the server at that address.
- `INTERLOCK_AGENT_KEY` is the key of an outside agent, for `token mint`.
- Answers go to stdout, errors and hints to stderr. Exit code 0 is success, 1 a refusal (one line
  for each problem), 2 a command that was not understood. `--json` prints what REST answers.
"""
_REST = """\
# REST

<!-- written by scripts/reference.py -->

JSON under `/api/v1`, with `Authorization: Bearer <key>`; `GET /api/v1/openapi.json` has the shapes.
A route may be called with any of its roles. Another tenant's things do not exist (404). Bodies are
strict JSON: no duplicate keys, NaN, unknown members or compression, at most 4 MiB. Errors are
`{"error": {"code", "message", "problems"}}`, see [errors](errors.md). Times are microseconds since
1970 in UTC (`_us`), money is micro-USD.

| route | roles | |
|---|---|---|
"""
_ALL = "any"
_KINDS: Mapping[object, str] = {str: "TEXT", int: "NUMBER", float: "NUMBER", Path: "PATH"}


def wanted() -> dict[str, str]:
    """Return the text of each page by file name."""
    return {"cli.md": cli_page(), "rest.md": rest_page()}


def cli_page() -> str:
    """Return the page of all commands, in the order of `interlock --help`."""
    root = typer.main.get_command(cli)
    return _CLI + "".join(f"\n{section}" for section in _commands("interlock", root))


def rest_page() -> str:
    """Return the table of all routes for programs, in the order in which they are registered."""
    with tempfile.TemporaryDirectory() as folder:
        interlock = Interlock.open(Config(data_dir=Path(folder)))
        routes = list(iter_route_contexts(create_app(interlock).routes))
        interlock.close()
    rows = [_row(route) for route in routes if getattr(route, "include_in_schema", False)]
    return _REST + "".join(rows)


def _commands(name: str, command: object) -> Iterator[str]:
    if isinstance(command, TyperGroup):
        for inner, found in command.commands.items():
            yield from _commands(f"{name} {inner}", found)
    elif isinstance(command, TyperCommand):
        yield _command(name, command)


def _command(name: str, command: TyperCommand) -> str:
    arguments = [p for p in command.params if isinstance(p, TyperArgument)]
    options = [p for p in command.params if isinstance(p, TyperOption) and p.name != "help"]
    usage = " ".join([name, *(_placeholder(argument) for argument in arguments)])
    lines = [f"## {usage}", "", inspect.cleandoc(command.help or "")]
    told = [(_choices(p) or _placeholder(p), p.help or "") for p in arguments]
    told += [(_spelling(option), _help(option)) for option in options]
    if told:
        lines += ["", "| | |", "|---|---|"]
        lines += [f"| `{spelling}` | {text} |" for spelling, text in told]
    return "\n".join(lines) + "\n"


def _placeholder(argument: TyperArgument) -> str:
    name = argument.metavar or str(argument.name).upper()
    return name if argument.required else f"[{name}]"


def _spelling(option: TyperOption) -> str:
    spelling = ", ".join([*option.opts, *option.secondary_opts])
    return spelling if option.is_flag else f"{spelling} {_kind(option)}"


def _kind(option: TyperOption) -> str:
    return _choices(option) or _KINDS[_annotation(option)]


def _choices(parameter: TyperArgument | TyperOption) -> str:
    annotation = _annotation(parameter)
    choices: Iterable[object] = get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        choices = [member.value for member in annotation]
    # The bar would end the cell of a table.
    return "\\|".join(map(str, choices))


def _annotation(parameter: TyperArgument | TyperOption) -> object:
    annotation: object = parameter.type_descriptor.annotation
    return get_args(annotation)[0] if str(annotation).startswith("list[") else annotation


def _help(option: TyperOption) -> str:
    notes = ["required"] if option.required else []
    notes += ["repeatable"] if option.multiple else []
    has_default = not option.is_flag and option.default not in (None, [], ())
    default = f"{option.default:g}" if isinstance(option.default, float) else option.default
    notes += [f"default {default}"] if has_default else []
    return " ".join([option.help or "", *([f"({', '.join(notes)})"] if notes else [])]).strip()


def _row(route: RouteContext) -> str:
    said = (inspect.getdoc(route.endpoint) or "").partition("\n\n")[0].replace("\n", " ")
    roles = _roles(getattr(route, "dependant", None))
    named = _ALL if roles == frozenset(Role) else ", ".join(role for role in Role if role in roles)
    method = "/".join(sorted(route.methods or ()))
    return f"| `{method} {route.path}` | {named or 'open'} | {said} |\n"


def _roles(dependant: Dependant | None) -> frozenset[Role]:
    if dependant is None:
        return frozenset()
    declared: frozenset[Role] = frozenset(getattr(dependant.call, "roles", ()))
    return declared.union(*(_roles(inner) for inner in dependant.dependencies))


def main(arguments: list[str]) -> int:
    """Write the pages, or compare them."""
    pages = wanted()
    stale = [
        name
        for name, text in pages.items()
        if not (FOLDER / name).is_file() or (FOLDER / name).read_text() != text
    ]
    if arguments != ["--check"]:
        for name in stale:
            (FOLDER / name).write_text(pages[name])
        return 0
    for name in stale:
        command = "python scripts/reference.py"
        print(f"docs/reference/{name} is not current: run `{command}`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
