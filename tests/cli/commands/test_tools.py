"""`tool` and `tool import`: the registry, and manifests proposed from what exists."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from interlock.testing import recorder_project
from interlock.tools.upstream import pin_of
from tests.cli.terminal import done, interlock
from tests.runtime.mcp_project import OFFERED, TOOL, files, offer

MCP_SERVER = Path(__file__).resolve().parents[2] / "conformance" / "mcp_outside.py"
PROJECT = """\
interlock: v1
kind: Project
name: shop
title: Shop
include: [defaults]
teams: [platform, security]
---
interlock: v1
kind: System
name: shop
title: Shop
owner: platform
"""
SERVER = "interlock: v1\nkind: Server\nname: shop-dev\nsystem: shop\nenvironment: dev\n"
DOCUMENT = {
    "openapi": "3.1.0",
    "info": {"title": "Shop", "version": "1"},
    "paths": {
        "/orders/{id}": {
            "get": {
                "operationId": "getOrder",
                "parameters": [
                    {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
                ],
                "responses": {
                    "200": {
                        "description": "ok",
                        "content": {"application/json": {"schema": {"type": "object"}}},
                    }
                },
            }
        }
    },
}
PACKAGE = '''
def convert(amount: int, currency: str) -> dict[str, int]:
    """Convert an amount."""
    return {currency: amount}
'''


def declare(folder: Path, server: str) -> None:
    """Write a project with one server entry."""
    (folder / "project.yaml").write_text(PROJECT)
    (folder / "servers").mkdir(exist_ok=True)
    (folder / "servers" / "dev.yaml").write_text(SERVER + server)


def write(folder: Path, texts: Mapping[str, str]) -> None:
    """Write the files of a project."""
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_an_openapi_document_becomes_a_project_that_applies(folder: Path) -> None:
    """What is written for review loads as it is, and the registry shows it with its promise."""
    declare(folder, "protocol: http\nurl: http://127.0.0.1:9000\n")
    (folder / "shop.json").write_text(json.dumps(DOCUMENT))

    written = done(
        "tool", "import", "openapi", "shop.json", "--server", "shop-dev", "--owner", "platform"
    )
    done("apply", "--yes")

    assert "wrote tools/shop.order.get.yaml" in written.splitlines()
    assert "shop.order.get" in done("tool", "list")
    shown = done("tool", "show", "shop.order.get")
    assert "promise        changes nothing; may run twice" in shown
    assert (1, "error: there is no tool `shop.order`") == (
        interlock("tool", "show", "shop.order").refusal
    )


def test_importing_again_keeps_what_was_reviewed(folder: Path) -> None:
    """A file that exists is not replaced."""
    declare(folder, "protocol: http\nurl: http://127.0.0.1:9000\n")
    (folder / "shop.json").write_text(json.dumps(DOCUMENT))
    command = ("tool", "import", "openapi", "shop.json", "--server", "shop-dev")
    done(*command, "--owner", "platform")
    manifest = folder / "tools" / "shop.order.get.yaml"
    manifest.write_text(manifest.read_text().replace("risk: 1", "risk: 2") + "# reviewed\n")

    said = interlock(*command, "--owner", "platform")

    assert "kept tools/shop.order.get.yaml, which exists already" in said.err
    assert manifest.read_text().endswith("# reviewed\n")


def test_an_mcp_server_of_the_project_is_asked(folder: Path) -> None:
    """Over stdio, as the project declares; whatever it claims, its tools are blind writes."""
    argv = json.dumps([sys.executable, str(MCP_SERVER)])
    declare(folder, f"protocol: mcp-stdio\nargv: {argv}\n")

    done("tool", "import", "mcp", "--server", "shop-dev", "--owner", "platform")

    written = sorted(path.name for path in (folder / "tools").iterdir())
    assert "shop.echo.call.yaml" in written
    text = (folder / "tools" / "shop.echo.call.yaml").read_text()
    assert ("group: write" in text, "class: blind" in text) == (True, True)
    assert "+ tool shop.echo.call" in done("plan")


def test_a_tool_that_its_server_changed_is_quarantined_until_it_is_pinned(folder: Path) -> None:
    """The difference is shown with its invisible characters; the file keeps its comments."""
    path = offer(folder, OFFERED)
    pin = str(pin_of(OFFERED))
    write(folder, files(path, pin=pin))
    done("apply", "--yes")
    same = done("tool", "check", "files-dev")
    offer(folder, {**OFFERED, "description": "Write \u202ea note"}, {**OFFERED, "name": "other"})

    changed = done("tool", "check", "files-dev")
    shown = done("tool", "show", TOOL)
    written = done("tool", "pin", TOOL)
    done("apply", "--yes")

    assert "same" in same
    assert "changed" in changed
    assert "Write \\u202ea note" in changed
    assert "not registered, and so out of reach: other" in changed
    assert "its server changed its description since it was reviewed" in shown
    assert f"wrote version 2 of `{TOOL}`" in written
    text = (folder / "project.yaml").read_text()
    assert ("version: 2  # reviewed by ann" in text, pin in text) == (True, False)
    assert "same" in done("tool", "check", "files-dev")
    assert "quarantine     -" in done("tool", "show", TOOL)
    assert f"`{TOOL}` is pinned to what its server says now" in done("tool", "pin", TOOL)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["check", "files-deev"], "there is no server `files-deev`"),
        (["pin", "files.note.wrote"], "has no MCP tool `files.note.wrote`; did you mean"),
        (["pin", TOOL], "`files-dev` offers no tool `write_note` that can be pinned"),
    ],
)
def test_what_cannot_be_checked_or_pinned_is_one_sentence(
    folder: Path, arguments: list[str], problem: str
) -> None:
    """Nothing is written."""
    write(folder, files(offer(folder), pin=None))
    done("apply", "--yes")
    before = (folder / "project.yaml").read_text()

    code, error = interlock("tool", *arguments).refusal

    assert (1, True) == (code, problem in error), error
    assert before == (folder / "project.yaml").read_text()


def test_who_may_call_what_with_which_credentials_is_one_list(folder: Path) -> None:
    """A line for each environment; a tool that is not called says so."""
    write(folder, files(offer(folder, OFFERED), pin=str(pin_of(OFFERED))))
    done("apply", "--yes")

    bound = done("tool", "list", "--grants")
    offer(folder)
    done("tool", "check", "files-dev")

    line = next(line for line in bound.splitlines() if TOOL in line)
    assert [TOOL, "1", "dev", "files-dev", "mcp-stdio", "-", "notes/workflow", "bound"] == (
        line.split()
    )
    assert "quarantined" in done("tool", "list", "--grants")


def test_a_tool_is_tried_out_without_a_call(folder: Path) -> None:
    """Check by check; the exit code says whether all is well, before and after a change."""
    write(folder, files(offer(folder, OFFERED), pin=str(pin_of(OFFERED))))
    done("apply", "--yes")
    (folder / "arguments.json").write_text('{"text": "hello"}')

    well = done("tool", "test", TOOL, "--arguments", "arguments.json")
    offer(folder)
    bad = interlock("tool", "test", TOOL, "--env", "dev", "--json")

    assert f"{TOOL}: no call was made" in well
    assert '"tool": "write_note"' in well
    assert (1, False) == (bad.code, bad.json["is_ok"])
    assert "`write_note`, it offers no tools" in bad.out


def test_credentials_of_each_workflow_are_listed_with_its_name(folder: Path) -> None:
    """Of a binding that has some for each, none is for all."""
    project = recorder_project.files("http://127.0.0.1:9")
    workflow, one = recorder_project.WORKFLOW_OF["keyed"], "secret://recorder/dev/one"
    bound = f"{{server: recorder-dev, credentials: {{{workflow}: {one}}}}}"
    project = {p: text.replace("{server: recorder-dev}", bound) for p, text in project.items()}
    project["servers/recorder-dev.yaml"] += "auth: bearer\n"
    write(folder, project)
    done("apply", "--yes")

    assert f"{workflow}: {one}" in done("tool", "list", "--grants")


def test_two_versions_are_compared_with_what_is_grave_by_name_first(folder: Path) -> None:
    """Of a version that is not kept the known ones are told."""
    path = offer(folder, OFFERED)
    write(folder, files(path, pin=str(pin_of(OFFERED))))
    done("apply", "--yes")
    text = files(path, pin=str(pin_of(OFFERED)), version=2)["project.yaml"]
    (folder / "project.yaml").write_text(
        text.replace("sink: {accepts: []", "sink: {accepts: [pii]").replace(
            "teams:", "labels: [pii]\nteams:"
        )
    )
    done("apply", "--yes")

    shown = done("tool", "diff", f"{TOOL}@1")

    assert "rights and risks change: sink" in shown
    assert f"--- {TOOL}@1" in shown
    assert '+      "pii"' in shown
    assert "no difference" in done("tool", "diff", f"{TOOL}@2", f"{TOOL}@2")
    assert "versions       1, 2" in done("tool", "show", TOOL)
    for arguments, problem in (
        ([f"{TOOL}@3"], f"there is no version 3 of `{TOOL}`, only 1, 2"),
        (["none@1"], "there is no tool `none`"),
        ([TOOL], f"`{TOOL}` names no version; write it as NAME@1"),
        ([f"{TOOL}@1", "other@2"], "are two tools"),
    ):
        assert problem in interlock("tool", "diff", *arguments).refusal[1]


def test_functions_of_installed_packages_become_tools(
    folder: Path, install_functions: Callable[[str, str], None]
) -> None:
    """A package offers them as entry points; its name is not configuration, it is installed."""
    declare(folder, "protocol: python\n")
    install_functions("money.convert = shop_tools:convert", PACKAGE)

    done("tool", "import", "python", "--server", "shop-dev", "--owner", "platform")
    done("apply", "--yes")

    assert "shop.money.convert" in done("tool", "list")


@pytest.mark.parametrize(
    ("kind", "arguments", "problem"),
    [
        ("mcp", ["--server", "shop-dev"], "the server `shop-dev` speaks `http`, and `mcp-http`"),
        ("mcp", ["--server", "shop-deev"], "has no server `shop-deev`; did you mean `shop-dev`?"),
        ("openapi", ["no.json", "--server", "shop-dev"], "No such file or directory: `no.json`"),
        ("openapi", ["servers/dev.yaml", "--server", "shop-dev"], "is no OpenAPI"),
        ("python", ["--server", "shop-dev"], "the server `shop-dev` speaks `http`, and `python`"),
    ],
)
def test_what_cannot_be_imported_is_one_sentence(
    folder: Path, kind: str, arguments: list[str], problem: str
) -> None:
    """Nothing is written."""
    declare(folder, "protocol: http\nurl: http://127.0.0.1:9000\n")

    code, error = interlock("tool", "import", kind, *arguments, "--owner", "platform").refusal

    assert (1, True) == (code, problem in error), error
    assert not (folder / "tools").exists()


def test_a_breaker_is_opened_and_closed_by_hand(folder: Path) -> None:
    """The list says until when and why the server is not called."""
    declare(folder, "protocol: http\nurl: http://127.0.0.1:9000\n")
    done("apply", "--yes")
    opened = done("tool", "breaker", "open", "shop-dev", "--reason", "they migrate", "--for", "60")
    listed = done("tool", "breaker", "list")

    closed = [done("tool", "breaker", "close", "shop-dev").strip() for _ in range(2)]

    assert opened.startswith("open until 20")
    assert "they migrate" in listed
    assert ["closed", "it was closed already"] == closed
