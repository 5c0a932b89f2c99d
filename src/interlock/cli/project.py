"""`interlock init`, `plan` and `apply`: the project folder, what it would change, and doing it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from interlock.cli.output import connected, out, show_json, tells_errors
from interlock.domain.canonical import Json, JsonObject
from interlock.manifest import files, template

Folder = Annotated[Path, typer.Argument(help="The project folder.")]


@tells_errors
def init(folder: Folder = Path()) -> None:
    """Write a small project that is read-only until you widen it."""
    for path in template.write(folder):
        out.print(Text(f"wrote {path}"))
    out.print(Text(f"next: interlock plan {folder}"))


@tells_errors
def plan(
    folder: Folder = Path(), *, as_json: Annotated[bool, typer.Option("--json")] = False
) -> None:
    """Show what applying a project folder would change; changes nothing."""
    with connected() as client:
        body = client.post("project/plan", {"files": _files(folder)})
    if as_json:
        show_json(body)
        return
    _print_diff(body)


@tells_errors
def apply(
    folder: Folder = Path(),
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Show the difference, ask, and apply the folder as one release, whole or not at all."""
    with connected() as client:
        body = client.post("project/plan", {"files": _files(folder)})
        _print_diff(body)
        if body["is_empty"]:
            return
        if not yes and not typer.confirm("apply?"):
            raise typer.Exit(1)
        done = client.post("project/apply", {"files": _files(folder), "diff": body["digest"]})
    out.print(Text(f"release {done['release']} is live", style="green"))


def _files(folder: Path) -> JsonObject:
    texts: dict[str, Json] = {}
    texts.update(files.read_folder(folder))
    return texts


def _print_diff(body: JsonObject) -> None:
    out.print(Text(str(body["text"])))
