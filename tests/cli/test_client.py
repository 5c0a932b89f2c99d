"""How the terminal finds a server, and what it makes of answers that are not one's."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from interlock.cli.client import ADDRESS_FILE, Address, find_address, write_address
from interlock.config import Config
from interlock.domain.errors import InputError
from tests.cli.terminal import done, interlock


class _Stranger(BaseHTTPRequestHandler):
    """Some other program at the address: it answers everything with a page."""

    seen: ClassVar[list[tuple[str, str | None]]] = []
    body: ClassVar[bytes] = b"<html>welcome</html>"

    def do_GET(self) -> None:  # the standard library's name
        """Answer."""
        self.seen.append((self.path, self.headers["Authorization"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def stranger() -> Iterator[str]:
    """The address of a program that is no Interlock server."""
    _Stranger.seen.clear()
    server = HTTPServer(("127.0.0.1", 0), _Stranger)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_address_is_written_for_this_user_alone(tmp_path: Path) -> None:
    """Also over an older one that others may read."""
    (tmp_path / ADDRESS_FILE).write_text("{}")
    (tmp_path / ADDRESS_FILE).chmod(0o644)

    address = Address(url="http://127.0.0.1:1", token="ilk_x")
    file = write_address(tmp_path, address, proof_key="key")

    assert {"url": "http://127.0.0.1:1", "token": "ilk_x", "proof_key": "key"} == (
        json.loads(file.read_text())
    )
    assert 0o600 == stat.S_IMODE(file.stat().st_mode)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "[]",
        "{}",
        '{"url": 7, "token": "x"}',
        '{"url": "no url", "token": "x", "proof_key": 7}',
        '{"url": "http://127.0.0.1:1", "token": "x"}',
        '{"url": "http://127.0.0.1:1", "token": "x", "proof_key": "key"}',
    ],
)
def test_an_address_that_leads_nowhere_is_no_server(tmp_path: Path, text: str | None) -> None:
    """What a killed server leaves behind is ignored."""
    if text is not None:
        (tmp_path / ADDRESS_FILE).write_text(text)

    assert None is find_address(Config(data_dir=tmp_path))


@pytest.mark.parametrize("proof", [None, "", "0" * 64])
def test_the_token_goes_to_no_server_that_does_not_know_us(
    folder: Path, stranger: str, monkeypatch: pytest.MonkeyPatch, proof: str | None
) -> None:
    """Another program at a stale address has to prove who it is before it is told who we are."""
    answer = {"status": "alive"} | ({} if proof is None else {"proof": proof})
    monkeypatch.setattr(_Stranger, "body", json.dumps(answer).encode())
    (folder / ".interlock").mkdir()
    address = Address(url=stranger, token="ilk_secret")
    write_address(folder / ".interlock", address, proof_key="key")

    done("run", "list")

    assert [("/healthz", None)] == [(path.partition("?")[0], key) for path, key in _Stranger.seen]


def test_the_environment_names_a_server(
    folder: Path, stranger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It wins over the data folder; an answer that is none of ours is one sentence."""
    assert not (folder / ".interlock").exists()
    monkeypatch.setenv("INTERLOCK_URL", stranger)
    monkeypatch.setenv("INTERLOCK_TOKEN", "ilk_x")

    code, error = interlock("run", "list").refusal

    assert 1 == code
    assert (
        f"error: `{stranger}/api/v1/runs?limit=50` answered 200 and nothing that we can read;"
        " is it an Interlock server?"
    ) == error
    assert not (folder / ".interlock").exists()


@pytest.mark.usefixtures("folder")
def test_a_server_of_the_environment_that_is_away_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is opened here instead of it."""
    monkeypatch.setenv("INTERLOCK_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("INTERLOCK_TOKEN", "ilk_x")

    code, error = interlock("run", "list").refusal

    assert (1, True) == (code, error.startswith("error: the server at `http://127.0.0.1:1` does"))


def test_a_server_of_the_environment_needs_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token of the data folder is not sent to a server that is named elsewhere."""
    monkeypatch.setenv("INTERLOCK_URL", "http://127.0.0.1:1")

    with pytest.raises(InputError, match="set `INTERLOCK_TOKEN` to a key of yours there"):
        find_address(Config(data_dir=tmp_path))


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("token", ["ilk_wrong", "not a key", "ilk_\u00e9"])
def test_a_wrong_token_is_one_sentence(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is made of."""
    monkeypatch.setenv("INTERLOCK_TOKEN", token)

    code, error = interlock("run", "list").refusal

    assert (1, True) == (code, error.startswith("error: "))
    assert 1 == len(error.splitlines())
