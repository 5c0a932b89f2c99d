"""`interlock budget`: what may be spent, and what is left of it."""

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
from interlock.domain.canonical import JsonObject

app = typer.Typer(help="What may be spent, and what is left of it.", no_args_is_help=True)


@app.command("list")
@tells_errors
def list_(*, as_json: AsJson = False) -> None:
    """List budgets: of whom, in which window, and how much of what."""
    with connected() as client:
        body = client.get("budgets")
    if as_json:
        show_json(body)
        return
    columns = ("name", "scope", "of", "period", "unit", "limit", "soft", "title")
    table(
        columns,
        [tuple(row[name] for name in columns) for row in rows_of(body, "budgets")],
        empty="no budgets; declare one in a file of the project's folder `budgets`",
    )


@app.command("show")
@tells_errors
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The budget's name.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Show what is spent, reserved and left, and at this pace by when the limit is reached."""
    with connected() as client:
        body = client.get("budgets", name)
    if as_json:
        show_json(body)
        return
    say(f"{body['title']}: {body['limit']} {body['unit']} for each {body['period']}")
    columns = ("account", "spent", "reserved", "left", "forecast")
    table(
        (*columns, "limit reached", "window ends", "state"),
        [
            (
                *(row[column] for column in columns),
                when(row["reached_us"]),
                when(row["end_us"]),
                _state_of(row),
            )
            for row in rows_of(body, "accounts")
        ],
        empty="nothing spent yet",
    )


def _state_of(row: JsonObject) -> str:
    if row["is_closed"]:
        return "closed: more was billed than reserved; raise the limit"
    if row["left"] == 0:
        return "spent"
    return "over its soft limit" if row["is_soft_reached"] else "open"
