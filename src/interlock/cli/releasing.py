"""Releasing a version of a tool: its files say where it is live, and people see what that moves."""

from __future__ import annotations

from pathlib import Path

from interlock.cli.output import say
from interlock.domain.errors import InputError
from interlock.domain.ids import ToolName
from interlock.domain.record import object_to_json
from interlock.domain.release import Release
from interlock.domain.text import difference
from interlock.domain.tool import ENVIRONMENTS, Environment, ToolVersion
from interlock.manifest.diff import GRAVE
from interlock.manifest.files import read_folder
from interlock.manifest.load import load
from interlock.tools.proposal import released


def release(folder: Path, *, name: str, version: int, environment: str) -> None:
    """Make a version of a project's tool the live one of an environment, in its files only.

    Nothing is written unless the whole project still loads.
    """
    place = _environment(environment)
    files = read_folder(folder)
    tool = ToolName(name)
    before = load(files).live(tool, place)
    changed = released(files, tool, version, place)
    project = load({**files, **changed})
    after = project.live(tool, place)
    if not changed or after is None:
        say(f"`{name}@{version}` is live in `{place}`")
        return
    for path, text in sorted(changed.items()):
        (folder / path).write_text(text, encoding="utf-8")
        say(f"wrote {folder / path}")
    _tell(project, before, after, place)
    say("`interlock plan` shows what else changes, `interlock apply` puts it in force")


def _environment(text: str) -> Environment:
    found: Environment | None = next((one for one in ENVIRONMENTS if one == text), None)
    if found is None:
        raise InputError(f"there is no environment `{text}`; take {', '.join(ENVIRONMENTS)}")
    return found


def _tell(
    project: Release, before: ToolVersion | None, after: ToolVersion, place: Environment
) -> None:
    was = "none" if before is None else str(before.version)
    say(f"{after.name} in {place}: version {was} -> {after.version}", style="bold")
    if before is not None:
        sides = [object_to_json(tool) for tool in (before, after)]
        grave = [key for key in GRAVE if sides[0][key] != sides[1][key]]
        if grave:
            say(f"rights and risks change: {', '.join(grave)}", style="bold")
        names = (f"{after.name}@{before.version}", f"{after.name}@{after.version}")
        for line in difference(sides[0], sides[1], names=names):
            say(f"  {line}")
    for flow in project.callers(after.name):
        say(f"ask `{flow.owner}`, whose workflow `{flow.name}` calls it")
