"""`interlock key`, `token` and `secret`: who may come in, and what tools authenticate with."""

from __future__ import annotations

from typing import Annotated

import typer

from interlock.cli.client import AGENT_KEY_VARIABLE, TOKEN_VARIABLE, mint_token
from interlock.cli.output import (
    AsJson,
    connected,
    note,
    read_secret,
    rows_of,
    say,
    settings,
    show_json,
    table,
    tells_errors,
    when,
)
from interlock.domain.canonical import JsonObject
from interlock.domain.principal import Role

app = typer.Typer(help="API keys of people and services.", no_args_is_help=True)
tokens = typer.Typer(help="Sessions of outside agents.", no_args_is_help=True)
secrets = typer.Typer(help="Credentials of tools, by reference.", no_args_is_help=True)


@app.command()
@tells_errors
def create(
    name: Annotated[str, typer.Argument(help="Who the key is for, as dana or ci-bot.")],
    role: Annotated[list[Role] | None, typer.Option(help="What it may do.")] = None,
    group: Annotated[list[str] | None, typer.Option(help="A team it answers for.")] = None,
    *,
    is_service: Annotated[bool, typer.Option("--service", help="Not a person.")] = False,
    seat: Annotated[
        str | None, typer.Option("--agent", help="An outside agent's seat, as workflow/agent.")
    ] = None,
    environment: Annotated[
        str | None, typer.Option("--env", help="Where that agent works: dev, stage or prod.")
    ] = None,
    expires_in_s: Annotated[
        int | None, typer.Option("--expires-in", min=60, help="Seconds; without it, never.")
    ] = None,
) -> None:
    """Create a key; its token is printed once and cannot be read again."""
    if (seat is None) != (environment is None):
        raise typer.BadParameter("`--agent` and `--env` go together")
    body: JsonObject = {
        "name": name,
        "kind": "service" if is_service else "user",
        "roles": [str(one) for one in role or ()],
        "groups": list(group or ()),
        "expires_in_s": expires_in_s,
    }
    if seat is not None:
        body |= {"kind": "agent", "place": {"seat": seat, "environment": environment}}
    elif not role:
        raise typer.BadParameter("a key needs a `--role`, or `--agent` and `--env`")
    with connected() as client:
        made = client.post("keys", body=body)
    variable = TOKEN_VARIABLE if seat is None else AGENT_KEY_VARIABLE
    note(f"key {made['key_id']}; to use it: export {variable}=<the token>")
    say(str(made["token"]))


@app.command("list")
@tells_errors
def list_(*, as_json: AsJson = False) -> None:
    """List all keys ever made, without their tokens."""
    with connected() as client:
        body = client.get("keys")
    if as_json:
        show_json(body)
        return
    table(
        ("key", "name", "kind", "may", "groups", "created", "expires", "revoked"),
        [
            (
                key["key_id"],
                key["principal"]["name"],
                key["principal"]["kind"],
                _place(key) or key["principal"]["roles"],
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


def _place(key: JsonObject) -> str | None:
    place = key["place"]
    seat = place["seat"] if isinstance(place, dict) else None
    if not isinstance(place, dict) or not isinstance(seat, dict):
        return None
    return f"sessions of {seat['workflow']}/{seat['agent']} in {place['environment']}"


@app.command()
@tells_errors
def revoke(key_id: Annotated[str, typer.Argument(metavar="KEY", help="The key's id.")]) -> None:
    """Revoke a key; its sessions end with it, and what they have open is not made any more."""
    with connected() as client:
        client.post("keys", key_id, "revoke")
    say("revoked")


@app.command()
@tells_errors
def link() -> None:
    """Print a link that signs you in to the console; it works once, for 15 minutes."""
    with connected() as client:
        body = client.post("keys", "sign-in-link")
        if not client.is_remote:
            note("no server runs; start `interlock serve` before you open the link")
    say(str(body["url"]))


Reference = Annotated[
    str, typer.Argument(metavar="REFERENCE", help="secret://<system>/<environment>/<name>")
]


@secrets.command("set")
@tells_errors
def set_(reference: Reference) -> None:
    """Store a credential, asked for or read from a pipe; it is the one that is sent."""
    value = read_secret("secret")
    with connected() as client:
        made = client.post("secrets", body={"reference": reference, "value": value})
    say(f"stored version {made['version']}")


@secrets.command()
@tells_errors
def rotate(
    reference: Reference,
    overlap: Annotated[
        str, typer.Option(help="How long deliveries signed with the one before are accepted.")
    ] = "1d",
) -> None:
    """Replace a credential while it is in use: the new one is sent from now on."""
    value = read_secret("secret")
    with connected() as client:
        made = client.post(
            "secrets", "rotate", body={"reference": reference, "value": value, "overlap": overlap}
        )
    say(f"stored version {made['version']}; the one before is accepted for {overlap}")


@secrets.command()
@tells_errors
def remove(reference: Reference) -> None:
    """Delete a credential with all its versions."""
    with connected() as client:
        client.post("secrets", "remove", body={"reference": reference})
    say("removed")


@secrets.command()
@tells_errors
def rekey() -> None:
    """Seal all credentials with a new key while they are in use."""
    with connected() as client:
        made = client.post("secrets", "rekey", body={})
    say(f"{made['count']} sealed with a new key; back the key file up")


@secrets.command("list")
@tells_errors
def list_secrets(*, as_json: AsJson = False) -> None:
    """List credentials: versions, who stored them, and what uses them; never their values."""
    with connected() as client:
        body = client.get("secrets")
    if as_json:
        show_json(body)
        return
    table(
        (
            "reference",
            "version",
            "stored",
            "by",
            "before until",
            "key",
            "used by",
            "problem",
        ),
        [
            (
                row["reference"],
                row["version"],
                when(row["created_us"]),
                row["created_by"],
                None if row["until_us"] is None else when(row["until_us"]),
                row["key_id"],
                row["used_by"],
                row["problem"],
            )
            for row in rows_of(body, "secrets")
        ],
        empty="no credentials, and the live release names none",
    )
    note(f"kept in {body['kept_in']}")


@tokens.command()
@tells_errors
def mint(
    *,
    as_headers: Annotated[
        bool, typer.Option("--headers", help="Print HTTP headers as JSON, as MCP clients ask.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Open a session for the agent whose key is in INTERLOCK_AGENT_KEY, and print its token."""
    made = mint_token(settings())
    token = str(made["access_token"])
    if as_headers:
        show_json({"Authorization": f"Bearer {token}"})
        return
    if as_json:
        show_json(made)
        return
    note(f"session {made['run_id']}; the token works for {made['expires_in']} s")
    say(token)


@tokens.command("revoke")
@tells_errors
def revoke_(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="The session's run.")],
) -> None:
    """End a session at once: its tokens stop, and what was not sent is not sent any more."""
    with connected() as client:
        client.post("runs", run_id, "cancel")
    say("revoked")
