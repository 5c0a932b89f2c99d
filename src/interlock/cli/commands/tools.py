"""`interlock tool`: the registry of tools, and manifests proposed from what exists."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from interlock.cli.commands.stops import breakers
from interlock.cli.output import (
    AsJson,
    connected,
    rows_of,
    say,
    show_json,
    table,
    tells_errors,
)
from interlock.cli.tool_view import by_workflow, show
from interlock.domain.canonical import JsonObject, parse
from interlock.domain.errors import InputError
from interlock.domain.tool import McpKind

app = typer.Typer(help="The registry of tools.", no_args_is_help=True)
imports = typer.Typer(help="Write manifests for review from what exists.", no_args_is_help=True)
app.add_typer(imports, name="import")
app.add_typer(breakers.app, name="breaker")
ToolArgument = Annotated[str, typer.Argument(metavar="NAME", help="The tool's name.")]
ServerName = Annotated[
    str, typer.Option("--server", help="The server entry of the project that reaches the tools.")
]
ServerArgument = Annotated[str, typer.Argument(metavar="SERVER", help="The server entry's name.")]
Owner = Annotated[str, typer.Option(help="The team that owns the tools.")]
Folder = Annotated[Path, typer.Option("--out", help="The project folder.")]


@app.command("list")
@tells_errors
def list_tools(
    *,
    grants: Annotated[
        bool, typer.Option("--grants", help="Where each is bound, with what, and for which seats.")
    ] = False,
    kind: Annotated[
        str | None, typer.Option("--kind", help="Only of such systems: ticketing, crm, ...")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List tools with version, owner, kind, class, risk, labels and environments."""
    with connected() as client:
        body = client.get("tools", kind=kind)
    if as_json:
        show_json(body)
        return
    if grants:
        _list_grants(body)
        return
    columns = (
        "name",
        "version",
        "kind",
        "group",
        "effect_class",
        "risk",
        "owner",
        "source_labels",
        "environments",
    )
    table(
        [column.replace("_", " ") for column in columns],
        [tuple(tool[column] for column in columns) for tool in rows_of(body, "tools")],
        empty="no tools yet; apply a project with `interlock apply FOLDER`",
    )


def _list_grants(body: JsonObject) -> None:
    bound = ("environment", "server", "protocol", "credentials")
    table(
        ("name", "version", *bound, "seats", "state"),
        [
            (
                tool["name"],
                binding["version"],
                *(by_workflow(binding[key]) for key in bound),
                tool["seats"],
                "quarantined" if binding["quarantine"] else "bound",
            )
            for tool in rows_of(body, "tools")
            for binding in rows_of(tool, "bindings")
        ],
        empty="no tool is bound; apply a project with `interlock apply FOLDER`",
    )


@app.command("diff")
@tells_errors
def diff_tool(
    before: Annotated[str, typer.Argument(metavar="A", help="A version, as NAME@1.")],
    after: Annotated[
        str | None, typer.Argument(metavar="B", help="Another, as NAME@2; the live one if absent.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Compare two versions of a tool, what changes rights and risks by name first."""
    name, older = _version(before)
    other, newer = (name, None) if after is None else _version(after)
    if other != name:
        raise InputError(f"`{name}` and `{other}` are two tools; versions of one are compared")
    with connected() as client:
        body = client.get("tools", name, "diff", before=older, after=newer)
    if as_json:
        show_json(body)
        return
    lines, grave = body["lines"], body["grave"]
    if isinstance(grave, list) and grave:
        say(f"rights and risks change: {', '.join(map(str, grave))}", style="bold")
    for line in lines if isinstance(lines, list) else ():
        say(str(line))
    if not lines:
        say("no difference")


@app.command("show")
@tells_errors
def show_tool(name: ToolArgument, *, as_json: AsJson = False) -> None:
    """Show one tool: its promise, its contract, where it goes, who has it and who calls it."""
    with connected() as client:
        body = client.get("tools", name)
        usage = client.get("tools", name, "usage")
    if as_json:
        show_json({**body, "usage": usage})
        return
    show(body, usage)


@app.command("check")
@tells_errors
def check_server(server: ServerArgument, *, as_json: AsJson = False) -> None:
    """Ask an MCP server for its tools now; those that differ from their pins are quarantined."""
    with connected() as client:
        body = client.post("servers", server, "check")
    if as_json:
        show_json(body)
        return
    columns = ("tool", "environment", "upstream", "state", "members")
    table(
        columns,
        [tuple(row[name] for name in columns) for row in rows_of(body, "tools")],
        empty=f"no tool of `{server}` is registered",
    )
    differences = body["differences"]
    for tool, lines in differences.items() if isinstance(differences, dict) else ():
        say(f"{tool}: quarantined; the words below are the server's", style="bold")
        for line in lines if isinstance(lines, list) else ():
            say(f"  {line}")
        say(f"  look at it, then: interlock tool pin {tool}")
    unregistered = body["unregistered"]
    if isinstance(unregistered, list) and unregistered:
        say(f"not registered, and so out of reach: {', '.join(map(str, unregistered))}")


@app.command("test")
@tells_errors
def try_tool(
    name: ToolArgument,
    *,
    env: Annotated[
        str | None, typer.Option("--env", help="Where: dev, stage or prod; else wherever bound.")
    ] = None,
    arguments: Annotated[
        Path | None, typer.Option("--arguments", help="A JSON file; shows what would be sent.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look at what a call of a tool needs, check by check; no call is made."""
    given = None if arguments is None else parse(arguments.read_bytes())
    with connected() as client:
        asked: JsonObject = {"environment": env, "arguments": given}
        body = client.post("tools", name, "test", body=asked)
    if as_json:
        show_json(body)
    else:
        _show_trials(body)
    if not body["is_ok"]:
        raise typer.Exit(1)


def _show_trials(body: JsonObject) -> None:
    say(f"{body['tool']}: no call was made", style="bold")
    found = rows_of(body, "environments")
    columns = ("environment", "check", "state", "finding")
    table(
        columns,
        [
            (trial["environment"], check["name"], check["state"], check["message"])
            for trial in found
            for check in rows_of(trial, "checks")
        ],
        empty="it is bound in no environment; add one to `environments` of its manifest",
    )
    for trial in found:
        if trial["request"] is not None:
            say(f"{trial['environment']}: this would be sent, with the credentials added")
            show_json(trial["request"])


@app.command("pin")
@tells_errors
def pin_tool(
    name: ToolArgument,
    *,
    secret: Annotated[
        str | None, typer.Option(help="The credential's reference, if the server wants one.")
    ] = None,
    folder: Folder = Path(),
) -> None:
    """Write a new version of an MCP tool into the project, pinned to what its server says now."""
    # Loads the MCP SDK, which the other commands need not spend time on.
    from interlock.cli import importing  # noqa: PLC0415

    importing.pin(folder, name=name, reference=secret)


@app.command("release")
@tells_errors
def release_tool(
    version: Annotated[str, typer.Argument(metavar="VERSION", help="A version, as NAME@2.")],
    *,
    env: Annotated[str, typer.Option("--env", help="Where it is to be live: dev, stage or prod.")],
    folder: Folder = Path(),
) -> None:
    """Make a version of a tool the live one of an environment, in the files of the project."""
    # Loads the project and its checks, which the other commands need not spend time on.
    from interlock.cli import releasing  # noqa: PLC0415

    name, number = _version(version)
    releasing.release(folder, name=name, version=number, environment=env)


@imports.command("mcp")
@tells_errors
def import_mcp(
    server: ServerName,
    owner: Owner,
    *,
    resources: Annotated[bool, typer.Option("--resources", help="Take its resources too.")] = False,
    prompts: Annotated[bool, typer.Option("--prompts", help="Take its prompts too.")] = False,
    secret: Annotated[
        str | None, typer.Option(help="The credential's reference, if it wants one.")
    ] = None,
    folder: Folder = Path(),
) -> None:
    """Ask an MCP server of the project for its tools; whatever it says, each is write and blind.

    Its resources and prompts become tools that read, if they are asked for.
    """
    # Loads the MCP SDK, which the other commands need not spend time on.
    from interlock.cli import importing  # noqa: PLC0415

    asked: dict[McpKind, bool] = {"tool": True, "resource": resources, "prompt": prompts}
    taken = [kind for kind, is_asked in asked.items() if is_asked]
    importing.from_mcp(folder, server=server, owner=owner, kinds=taken, reference=secret)


@imports.command("openapi")
@tells_errors
def import_openapi(
    document: Annotated[Path, typer.Argument(metavar="DOCUMENT", help="JSON or YAML file.")],
    server: ServerName,
    owner: Owner,
    *,
    folder: Folder = Path(),
) -> None:
    """Read an OpenAPI 3 document; GET and HEAD become read, all else write and blind."""
    from interlock.cli import importing  # noqa: PLC0415  # as above

    importing.from_openapi(document, folder, server=server, owner=owner)


@imports.command("python")
@tells_errors
def import_python(server: ServerName, owner: Owner, *, folder: Folder = Path()) -> None:
    """Take the functions of installed packages, or those in the folder of a sandboxed server.

    Installed packages offer them as entry points `interlock.functions`. The code of a
    `python-sandbox` server is imported in the sandbox, never here.
    """
    from interlock.cli import importing  # noqa: PLC0415  # as above

    importing.from_python(folder, server=server, owner=owner)


def _version(text: str) -> tuple[str, int]:
    name, _, number = text.rpartition("@")
    if not name or not number.isdecimal():
        raise InputError(f"`{text}` names no version; write it as NAME@1")
    return name, int(number)
