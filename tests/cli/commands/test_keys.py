"""`key` and `secret`: who may come in, and what tools authenticate with."""

from __future__ import annotations

import stat
from contextlib import closing
from pathlib import Path

import pytest

from interlock.app import Interlock
from interlock.config import Config
from interlock.testing.recorder_project import session_files
from tests.cli.terminal import done, interlock


@pytest.mark.usefixtures("folder")
def test_a_key_acts_as_its_principal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The token alone is on stdout; with it in the environment the terminal is that person."""
    made = interlock("key", "create", "dana", "--role", "viewer", "--role", "approver")
    monkeypatch.setenv("INTERLOCK_TOKEN", made.out.strip())

    allowed, refused = interlock("run", "list"), interlock("key", "list")

    assert (0, 1) == (allowed.code, refused.code)
    assert "error: `dana` needs one of the roles `admin`\n" == refused.err


@pytest.mark.usefixtures("folder")
def test_keys_are_listed_and_revoked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A revoked key lets nobody in."""
    token = done("key", "create", "dana", "--role", "viewer", "--group", "owners")
    keys = interlock("key", "list", "--json").json["keys"]
    assert isinstance(keys, list)
    key_id = next(
        str(key["key_id"])
        for key in keys
        if isinstance(key, dict) and "dana" in str(key["principal"])
    )

    assert "owners" in done("key", "list")
    assert "revoked" == done("key", "revoke", key_id)
    assert (1, f"error: there is no live key `{key_id}`") == (
        interlock("key", "revoke", key_id).refusal
    )
    monkeypatch.setenv("INTERLOCK_TOKEN", token)
    assert (1, "error: the key is not known, has expired or was revoked") == (
        interlock("run", "list").refusal
    )


@pytest.mark.usefixtures("folder")
def test_the_machines_own_user_cannot_approve() -> None:
    """The refusal says how to act as somebody else."""
    said = interlock("key", "create", "eve", "--role", "admin", "--role", "approver")

    assert 1 == said.code
    assert "`eve` would be admin and approver; give the roles to two people" in said.err


@pytest.mark.parametrize("arguments", [("dana",), ("dana", "--role", "king"), ("--role", "viewer")])
@pytest.mark.usefixtures("folder")
def test_a_key_needs_a_name_and_known_roles(arguments: tuple[str, ...]) -> None:
    """Usage errors have exit code 2."""
    assert 2 == interlock("key", "create", *arguments).code


@pytest.mark.usefixtures("folder")
def test_a_link_is_for_a_running_server() -> None:
    """Without one the link is made, and what is missing is said."""
    said = interlock("key", "link")

    assert said.out.startswith("http://127.0.0.1:8425/sign-in?link=")
    assert "no server runs; start `interlock serve` before you open the link\n" == said.err


def test_a_secret_is_read_from_standard_input(folder: Path) -> None:
    """It is sealed for this installation, with a key for this user alone, and printed nowhere."""
    said = interlock("secret", "set", "secret://desk/dev/bot", given="bot:pass word\n")

    data = folder / ".interlock"
    assert (0, "stored version 1\n") == (said.code, said.out)
    with closing(Interlock.open(Config(data_dir=data))) as opened:
        assert "bot:pass word" == opened.secrets.resolve("secret://desk/dev/bot")
    assert 0o600 == stat.S_IMODE((data / "secrets.key").stat().st_mode)
    assert b"pass word" not in (data / "interlock.db").read_bytes()


@pytest.mark.parametrize(
    ("reference", "value", "problem"),
    [
        ("secret://desk/dev/bot", "", "no value on standard input; pipe the secret in"),
        ("desk/bot", "x", "a credential must be a reference like"),
        ("secret://../../etc/passwd", "x", "a credential must be a reference like"),
        ("secret://desk/dev/bot", "two\nlines", "must be one line of text"),
    ],
    ids=["empty", "no-reference", "path", "lines"],
)
def test_a_bad_secret_is_refused(folder: Path, reference: str, value: str, problem: str) -> None:
    """And not repeated in the error."""
    code, error = interlock("secret", "set", reference, given=value).refusal

    assert (1, True) == (code, problem in error)
    assert not list(folder.rglob("bot"))


def test_a_key_of_an_agent_names_its_seat(folder: Path) -> None:
    """It is made for a seat that is declared live, and the list says what it opens."""
    for path, text in session_files("http://127.0.0.1:9").items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    done("apply", "--yes")
    making = ("key", "create", "helper-1", "--agent", "outside/helper", "--env")
    made = interlock(*making, "dev")
    elsewhere = interlock(*making, "prod")

    assert made.out.startswith("ilk_")
    assert "sessions of outside/helper in dev" in done("key", "list")
    assert "no live workflow lets `outside/helper` open sessions in `prod`" in elsewhere.refusal[1]


@pytest.mark.usefixtures("folder")
def test_a_key_of_an_agent_needs_seat_and_environment() -> None:
    """One without the other is a usage error."""
    assert 2 == interlock("key", "create", "helper-1", "--agent", "outside/helper").code


@pytest.mark.usefixtures("folder")
def test_a_token_needs_a_key_and_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is named."""
    monkeypatch.delenv("INTERLOCK_AGENT_KEY", raising=False)
    assert "INTERLOCK_AGENT_KEY" in interlock("token", "mint").refusal[1]
    monkeypatch.setenv("INTERLOCK_AGENT_KEY", "ilk_x")
    assert "INTERLOCK_URL" in interlock("token", "mint").refusal[1]
