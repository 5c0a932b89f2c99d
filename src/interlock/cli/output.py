"""What the terminal shows: tables, trees and times for people, JSON for programs, no tracebacks.

What comes from outside is printed with control and direction characters spelled out.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Annotated, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from interlock.cli.client import (
    AGENT_KEY_VARIABLE,
    TOKEN_VARIABLE,
    URL_VARIABLE,
    Client,
    RefusedError,
)
from interlock.cli.log import record_fault
from interlock.config import Config, load
from interlock.domain.canonical import Json, JsonObject
from interlock.domain.clock import from_us
from interlock.domain.errors import InputError, InterlockError, ProblemsError
from interlock.domain.text import visible

P = ParamSpec("P")
R = TypeVar("R")
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]

# A pipe has no width: a table there must not be folded as if it were a narrow terminal.
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 10_000)
err = Console(stderr=True, highlight=False, soft_wrap=True)

_FORBIDDEN = 403
_STYLES = {
    "succeeded": "green",
    "approved": "green",
    "allow": "green",
    "running": "cyan",
    "waiting": "yellow",
    "pending": "yellow",
    "needs_approval": "yellow",
    "queued": "cyan",
    "parked": "magenta",
    "failed": "red",
    "denied": "red",
    "deny": "red",
    "rejected": "red",
    "dead_lettered": "red",
}


def settings() -> Config:
    """Read the settings of this folder and of the environment."""
    ours = {AGENT_KEY_VARIABLE, TOKEN_VARIABLE, URL_VARIABLE}
    return load(Path.cwd(), {name: text for name, text in os.environ.items() if name not in ours})


@contextmanager
def connected() -> Iterator[Client]:
    """Open the client for one command."""
    with Client(settings()) as client:
        yield client


def tells_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn our errors into one sentence on stderr and exit code 1; faults of ours too.

    What was not understood (`typer.BadParameter`) has the exit code 2.
    """

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except RefusedError as error:
            _complain(error.problems or (error.message,))
            if error.status == _FORBIDDEN and TOKEN_VARIABLE not in os.environ:
                note(f"you act as this machine's user; set {TOKEN_VARIABLE} to act by another key")
        except ProblemsError as error:
            _complain(tuple(map(str, error.problems)))
        except InterlockError as error:
            _complain((error.message,))
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except (typer.BadParameter, typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except OSError as error:
            _complain((f"{error.strerror or error}: `{error.filename}`",))
        except Exception as error:  # noqa: BLE001  # the edge: what it was is recorded
            file = record_fault(_data_folder(), error)
            _complain((f"something went wrong on our side; `{file}` has the details",))
        raise typer.Exit(1)

    return wrapped


def _complain(messages: Sequence[str]) -> None:
    for message in messages:
        err.print(Text("error: ", style="red") + Text(visible(message)))


def _data_folder() -> Path:
    try:
        return settings().data_dir
    except InputError:
        return Path(tempfile.gettempdir())


def say(text: str, style: str = "") -> None:
    """Print a line."""
    out.print(Text(visible(text), style=style))


def fact(name: str, value: Json, *, width: int = 12) -> None:
    """Print one named value, indented below a heading."""
    out.print(Text(f"  {name:<{width}} ", style="dim") + cell(value))


def note(text: str) -> None:
    """Tell the person something that is not the answer: it goes to stderr."""
    err.print(Text(visible(text), style="dim"))


@contextmanager
def progress(what: str) -> Iterator[Callable[[JsonObject], None]]:
    """Show how far something is while it lasts, to a person; give who is told of each step."""
    with Progress(console=err, transient=True, disable=not err.is_terminal) as shown:
        task = shown.add_task(what, total=None)

        def heard(told: JsonObject) -> None:
            done, total = part(told, "progress", "done"), part(told, "progress", "total")
            shown.update(task, completed=float(str(done)), total=float(str(total)))

        yield heard


def texts_of(body: JsonObject, key: str) -> list[str]:
    """Return the texts of a list in an answer."""
    found = body.get(key)
    return list(map(str, found)) if isinstance(found, list) else []


def read_secret(what: str) -> str:
    """Ask for a secret, or read it from a pipe: arguments are visible to others."""
    if sys.stdin.isatty():
        value: str = typer.prompt(what, hide_input=True)
    else:
        value = sys.stdin.read().rstrip("\n")
    if not value:
        msg = "no value on standard input; pipe the secret in"
        raise InputError(msg)
    return value


def show_json(value: Json) -> None:
    """Print a value as indented JSON, as `--json` asks for; invisible characters as escapes."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    typer.echo("".join(_escaped(char) for char in text))


def _escaped(char: str) -> str:
    # Outside strings JSON has line breaks only.
    is_plain = char == "\n" or unicodedata.category(char) not in {"Cc", "Cf", "Co", "Cs"}
    return char if is_plain else json.dumps(char)[1:-1]


def table(columns: Sequence[str], rows: Sequence[Sequence[Json]], *, empty: str) -> None:
    """Print rows under headings; `empty` says what to do when there are none."""
    if not rows:
        say(empty, style="dim")
        return
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*(cell(value) for value in row))
    out.print(shown)


def cell(value: Json) -> Text:
    """Render one value as text that cannot be mistaken for markup."""
    if value is None:
        return Text("-", style="dim")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, list):
        return Text(visible(", ".join(map(str, value))) or "-")
    text = value if isinstance(value, str) else str(value)
    return Text(visible(text), style=_STYLES.get(text, ""))


def when(at_us: Json) -> str:
    """Render a time in UTC to the second."""
    if not isinstance(at_us, int):
        return "-"
    return from_us(at_us).strftime("%Y-%m-%d %H:%M:%S")


def money(micro_usd: Json) -> str:
    """Render micro-USD as dollars, exact to the micro.

    >>> money(1234)
    '$0.001234'
    """
    return f"${micro_usd / 1_000_000:.6f}" if isinstance(micro_usd, int) else "-"


def rows_of(body: JsonObject, key: str) -> list[JsonObject]:
    """Return the objects of a list in an answer."""
    found = body.get(key)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def part(body: Json, *path: str) -> Json:
    """Return a nested member, None if it is absent."""
    value = body
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value
