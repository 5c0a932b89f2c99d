"""`interlock key` and `interlock secret`: who may come in, and what tools authenticate with."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.text import Text

from interlock.cli.output import connected, out, rows_of, settings, table, tells_errors, when
from interlock.domain.errors import InputError
from interlock.tools.credentials import Credentials

app = typer.Typer(help="API keys of people and services.", no_args_is_help=True)
secrets = typer.Typer(help="Credentials of tools, by reference.", no_args_is_help=True)


@app.command()
@tells_errors
def create(
    name: Annotated[str, typer.Argument(help="Who the key is for, as dana or ci-bot.")],
    role: Annotated[list[str], typer.Option(help="viewer, operator, approver, owner, ...")],
    group: Annotated[list[str] | None, typer.Option(help="Groups to answer for.")] = None,
    *,
    is_service: Annotated[bool, typer.Option("--service", help="Not a person.")] = False,
    expires_in_s: Annotated[int | None, typer.Option("--expires-in", help="Seconds.")] = None,
) -> None:
    """Create a key; its token is printed once and cannot be read again."""
    with connected() as client:
        body = client.post(
            "keys",
            {
                "name": name,
                "kind": "service" if is_service else "user",
                "roles": list(role),
                "groups": list(group or ()),
                "expires_in_s": expires_in_s,
            },
        )
    out.print(Text(str(body["token"])))


@app.command("list")
@tells_errors
def list_() -> None:
    """List keys without their secrets."""
    with connected() as client:
        body = client.get("keys")
    table(
        ("key", "name", "kind", "roles", "groups", "created", "expires", "revoked"),
        [
            (
                key["key_id"],
                key["principal"]["name"],
                key["principal"]["kind"],
                key["principal"]["roles"],
                key["principal"]["groups"],
                when(key["created_us"]),
                when(key["expires_us"]),
                when(key["revoked_us"]),
            )
            for key in rows_of(body, "keys")
            if isinstance(key["principal"], dict)
        ],
        empty="no keys",
    )


@app.command()
@tells_errors
def revoke(key_id: str) -> None:
    """Revoke a key; its sessions end with it."""
    with connected() as client:
        client.post(f"keys/{key_id}/revoke")
    out.print("revoked")


@app.command()
@tells_errors
def link() -> None:
    """Print a one-time link that signs you in to the console (15 minutes)."""
    with connected() as client:
        body = client.post("keys/sign-in-link")
    out.print(Text(str(body["url"])))


@secrets.command("set")
@tells_errors
def set_(
    reference: Annotated[str, typer.Argument(help="secret://<system>/<environment>/<name>")],
) -> None:
    """Store a credential read from standard input (never an argument: those are visible)."""
    value = sys.stdin.read().rstrip("\n")
    if not value:
        msg = "no value on standard input; pipe the secret in"
        raise InputError(msg)
    Credentials(settings().data_dir / "secrets").store(reference, value)
    out.print("stored")
