"""`interlock init`, `plan` and `apply`: the project folder, what it would change, and doing it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from interlock.cli.client import Client
from interlock.cli.output import (
    AsJson,
    connected,
    note,
    part,
    say,
    show_json,
    tells_errors,
)
from interlock.domain.canonical import Json, JsonObject
from interlock.domain.errors import InputError
from interlock.manifest import files
from interlock.manifest.starter import starter_files

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="The project folder.")]


@tells_errors
def init(
    folder: Folder = Path(),
    *,
    name: Annotated[
        str | None, typer.Option(help="The project's name, else made of the folder's.")
    ] = None,
    owner: Annotated[str, typer.Option(help="The team that owns the project.")] = "platform",
) -> None:
    """Write a small project that is read-only until you widen it; replaces no file."""
    stem = re.sub(r"[^a-z0-9]+", "_", folder.resolve().name.lower()).strip("_")
    title = name or folder.resolve().name or "project"
    wanted = starter_files(name or stem or "project", title=title, owner=owner)
    taken = [path for path in wanted if (folder / path).exists()]
    if taken:
        msg = f"`{folder / taken[0]}` exists already; choose an empty folder"
        raise InputError(msg)
    for path, text in sorted(wanted.items()):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        say(f"wrote {target}")
    go = "" if folder.resolve() == Path.cwd() else f"cd {folder} && "
    say(f"next: {go}interlock plan, then interlock apply")


@tells_errors
def plan(
    folder: Folder = Path(),
    *,
    no_widening: Annotated[
        bool, typer.Option(help="Exit with 1 if a right or a risk is wider than now.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what applying a project folder would change, and for whom; changes nothing."""
    texts = _files(folder)
    with connected() as client:
        body = client.post("project", "plan", body={"files": texts})
    if as_json:
        show_json(body)
    else:
        say(str(body["text"]).rstrip("\n"))
    if no_widening and body["is_wider"]:
        raise typer.Exit(1)


@tells_errors
def apply(
    folder: Folder = Path(),
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Show the difference, ask, and apply the folder as one release, whole or not at all.

    What widens something in `prod` takes two people: exit code 1 until the second has asked.
    """
    texts = _files(folder)
    with connected() as client:
        shown = client.post("project", "plan", body={"files": texts})
        say(str(shown["text"]).rstrip("\n"))
        if shown["is_empty"]:
            return
        if not yes:
            typer.confirm("apply?", abort=True)
        _apply(client, texts, diff=shown["digest"])


def _apply(client: Client, texts: JsonObject, *, diff: Json) -> None:
    done = client.post("project", "apply", body={"files": texts, "diff": diff})
    if done["waits"] is None:
        say(f"release {done['release']} is live", style="green")
        return
    note(
        f"not applied yet: `{part(done, 'waits', 'by')}` has asked for it; another owner gives the"
        " same command on the same files within a day"
    )
    raise typer.Exit(1)


def _files(folder: Path) -> JsonObject:
    texts: dict[str, Json] = {}
    texts.update(files.read_folder(folder))
    return texts
