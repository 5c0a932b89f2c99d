"""`interlock tool breaker`: servers that fail, and are not called."""

from __future__ import annotations

from typing import Annotated

import typer

from interlock.cli.output import (
    AsJson,
    connected,
    rows_of,
    say,
    show_json,
    table,
    tells_errors,
    when,
)

app = typer.Typer(help="Servers that fail, and are not called.", no_args_is_help=True)
ServerArgument = Annotated[str, typer.Argument(metavar="SERVER", help="The server's name.")]


@app.command("list")
@tells_errors
def list_(*, as_json: AsJson = False) -> None:
    """List servers: whether calls to them are sent, until when not and why, and how many wait."""
    with connected() as client:
        body = client.get("breakers")
    if as_json:
        show_json(body)
        return
    columns = ("server", "environment", "state", "until", "waiting", "by", "reason")
    table(
        columns,
        [
            tuple(when(row["until_us"]) if name == "until" else row[name] for name in columns)
            for row in rows_of(body, "breakers")
        ],
        empty="no servers yet; apply a project with `interlock apply FOLDER`",
    )


@app.command("open")
@tells_errors
def open_(
    server: ServerArgument,
    reason: Annotated[str, typer.Option(help="Why it is not to be called.")],
    *,
    for_s: Annotated[
        int, typer.Option("--for", min=1, max=86_400, help="For how many seconds.")
    ] = 3600,
) -> None:
    """Send no calls to a server for a time: their runs wait, then one call probes."""
    with connected() as client:
        opened = client.post("breakers", server, "open", body={"reason": reason, "for_s": for_s})
    say(f"open until {when(opened['until_us'])}")


@app.command("close")
@tells_errors
def close(server: ServerArgument) -> None:
    """Send calls to a server again; the runs that wait follow one after the other."""
    with connected() as client:
        closed = client.post("breakers", server, "close")
    say("closed" if closed["was_open"] else "it was closed already")
