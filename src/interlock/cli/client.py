"""The terminal's way in: REST to the running server, or to the same application in this process.

A server leaves `address.json` (0600) with its URL and a token in the data folder. Without one that
answers, the application is opened here, so that no second process ever opens a server's database.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2

from interlock.app import Interlock
from interlock.config import Config
from interlock.domain.canonical import Json, JsonObject, parse
from interlock.domain.errors import InterlockError, UnavailableError
from interlock.serve.http import create_app
from interlock.serve.local import local_token

ADDRESS_FILE = "address.json"
TOKEN_VARIABLE = "INTERLOCK_TOKEN"  # noqa: S105  # the name of a variable
URL_VARIABLE = "INTERLOCK_URL"


class RefusedError(InterlockError):
    """The server's answer to a request that it did not accept."""

    code = "refused"

    def __init__(self, message: str, *, status: int, problems: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.problems = problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a server listens and the token that this machine's user may use there."""

    url: str
    token: str


class Client:
    """Sends requests and returns parsed answers; raises `RefusedError` for every refusal."""

    def __init__(self, config: Config) -> None:
        address = find_address(config)
        self.is_remote = address is not None
        self._interlock: Interlock | None = None
        if address is not None:
            self._http = httpx2.AsyncClient(
                base_url=address.url, headers=_bearer(address.token), timeout=30
            )
        else:
            self._interlock = Interlock.open(config)
            transport = httpx2.ASGITransport(app=create_app(self._interlock))
            self._http = httpx2.AsyncClient(
                transport=transport,
                base_url="http://localhost",
                headers=_bearer(os.environ.get(TOKEN_VARIABLE) or local_token(self._interlock)),
                timeout=30,
            )
        self._loop = asyncio.new_event_loop()

    def get(self, path: str, **query: str | int | list[str] | None) -> JsonObject:
        """Send a GET; query values of None are left out."""
        given = {key: value for key, value in query.items() if value is not None}
        return self._send("GET", path, query=given)

    def post(self, path: str, body: JsonObject | None = None) -> JsonObject:
        """Send a POST with a JSON body."""
        return self._send("POST", path, body=body)

    def _send(
        self,
        method: str,
        path: str,
        *,
        body: JsonObject | None = None,
        query: Mapping[str, str | int | list[str]] | None = None,
    ) -> JsonObject:
        request = self._http.request(
            method,
            f"/api/v1/{path}",
            params=dict(query or {}),
            json=body if method == "POST" and body is not None else None,
        )
        try:
            answer = self._loop.run_until_complete(request)
        except httpx2.HTTPError as error:
            msg = f"the server at `{self._http.base_url}` does not answer: {error}"
            raise UnavailableError(msg) from None
        return _checked(answer)

    def close(self) -> None:
        """Close the connection, and the application if it was opened here."""
        self._loop.run_until_complete(self._http.aclose())
        self._loop.close()
        if self._interlock is not None:
            self._interlock.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()


def find_address(config: Config) -> Address | None:
    """Return the address of a server that answers, from the environment or the data folder."""
    url, token = os.environ.get(URL_VARIABLE), os.environ.get(TOKEN_VARIABLE)
    if url and token:
        return Address(url=url, token=token)
    file = config.data_dir / ADDRESS_FILE
    try:
        found = json.loads(file.read_text())
        address = Address(url=found["url"], token=token or found["token"])
        httpx2.get(f"{address.url}/healthz", timeout=5).raise_for_status()
    except (OSError, ValueError, KeyError, httpx2.HTTPError):
        return None
    return address


def write_address(folder: Path, address: Address) -> Path:
    """Leave the address for terminals of this user; readable by nobody else."""
    file = folder / ADDRESS_FILE
    fresh = file.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        json.dump({"url": address.url, "token": address.token}, stream)
    fresh.replace(file)
    return file


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _checked(answer: httpx2.Response) -> JsonObject:
    body: Json = parse(answer.content) if answer.content else {}
    # INVARIANT: every REST answer is an object.
    assert isinstance(body, dict)
    if answer.status_code < 400:  # noqa: PLR2004  # the first error status
        return body
    error = body.get("error")
    found = error if isinstance(error, dict) else {}
    problems = found.get("problems")
    raise RefusedError(
        str(found.get("message", f"the server answered {answer.status_code}")),
        status=answer.status_code,
        problems=tuple(map(str, problems)) if isinstance(problems, list) else (),
    )
