"""The terminal's way in: REST to the running server, or to the same application in this process.

A server leaves `address.json` (0600) in the data folder: its URL, a token, and a key by which it is
known again. Without one that answers, the application is opened here, so that no second process
ever opens a server's database.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import httpx2

from interlock.config import Config
from interlock.domain.canonical import Json, JsonObject, parse
from interlock.domain.errors import InputError, InterlockError, JsonError, UnavailableError

ADDRESS_FILE = "address.json"
TOKEN_VARIABLE = "INTERLOCK_TOKEN"  # noqa: S105  # the name of a variable
URL_VARIABLE = "INTERLOCK_URL"
AGENT_KEY_VARIABLE = "INTERLOCK_AGENT_KEY"
_TIMEOUT_S = 30


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
    """Sends requests and returns parsed answers; raises `RefusedError` for every refusal.

    `is_remote` says that a server runs; without one nothing works on what is queued here.
    """

    def __init__(self, config: Config) -> None:
        address = find_address(config)
        self.is_remote = address is not None
        self._loop = asyncio.new_event_loop()
        self._close_app: Callable[[], None] = lambda: None
        try:
            self._http = self._open_here(config) if address is None else _over_network(address)
        except BaseException:
            self._loop.close()
            raise

    def _open_here(self, config: Config) -> httpx2.AsyncClient:
        # Loads the whole application, which takes seconds that a client of a server never needs.
        from interlock.cli.standalone import open_standalone  # noqa: PLC0415

        here = open_standalone(config)
        self._close_app = here.close
        return httpx2.AsyncClient(
            transport=here.transport,
            base_url="http://localhost",
            headers=_bearer(os.environ.get(TOKEN_VARIABLE) or here.token),
            timeout=_TIMEOUT_S,
        )

    def get(self, *path: str, **query: str | int | list[str] | None) -> JsonObject:
        """Send a GET to the segments of `path`; query values of None are left out."""
        given = {key: value for key, value in query.items() if value is not None}
        return self._send("GET", path, query=given)

    def post(
        self, *path: str, body: JsonObject | None = None, key: str | None = None
    ) -> JsonObject:
        """Send a POST with a JSON body; `key` makes a repeat of it the same request."""
        return self._send("POST", path, body=body, key=key)

    def follow(
        self, *path: str, body: JsonObject, heard: Callable[[JsonObject], None]
    ) -> JsonObject:
        """Send a POST that is answered line by line; return the last, `heard` is told the others.

        Raises `RefusedError` if it ends with an error.
        """
        try:
            return self._loop.run_until_complete(self._followed(path, body, heard))
        except httpx2.HTTPError as error:
            msg = f"the server at `{self._http.base_url}` does not answer: {error}"
            raise UnavailableError(msg) from None

    async def _followed(
        self, path: tuple[str, ...], body: JsonObject, heard: Callable[[JsonObject], None]
    ) -> JsonObject:
        async with self._http.stream("POST", _address(path), json=body) as answer:
            if not answer.is_success:
                await answer.aread()
                return _checked(answer)
            last: JsonObject = {}
            async for line in answer.aiter_lines():
                told = json.loads(line)
                if "error" in told:
                    raise RefusedError(str(told["error"]["message"]), status=answer.status_code)
                if last:
                    heard(last)
                last = told
            return last

    def _send(
        self,
        method: str,
        path: tuple[str, ...],
        *,
        body: JsonObject | None = None,
        query: Mapping[str, str | int | list[str]] | None = None,
        key: str | None = None,
    ) -> JsonObject:
        headers = {} if key is None else {"Idempotency-Key": key}
        request = self._http.request(
            method, _address(path), params=dict(query or {}), json=body, headers=headers
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
        self._close_app()

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
    """Return the address of a server that answers, from the environment or the data folder.

    Raises `InputError` if the environment names a server and no token for it.
    """
    url, token = os.environ.get(URL_VARIABLE), os.environ.get(TOKEN_VARIABLE)
    if url and not token:
        msg = f"`{URL_VARIABLE}` names a server; set `{TOKEN_VARIABLE}` to a key of yours there"
        raise InputError(msg)
    if url and token:
        return Address(url=url, token=token)
    address = running_server(config)
    return address if address is None or not token else replace(address, token=token)


def mint_token(config: Config) -> JsonObject:
    """Exchange the agent's key of the environment for the tokens of a new session.

    Raises `InputError` without key or server, `RefusedError` if the key is not accepted.
    """
    key = os.environ.get(AGENT_KEY_VARIABLE)
    if not key:
        raise InputError(f"set `{AGENT_KEY_VARIABLE}` to the agent's key")
    address, url = running_server(config), os.environ.get(URL_VARIABLE)
    if url is None and address is None:
        raise InputError(f"no server runs here; set `{URL_VARIABLE}` to the address of one")
    form = {"grant_type": "client_credentials", "client_secret": key}
    base = url or (address.url if address is not None else "")
    try:
        answer = httpx2.post(
            f"{base.rstrip('/')}/oauth/token", data=form, timeout=_TIMEOUT_S, trust_env=False
        )
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise UnavailableError(f"the server at `{base}` does not answer: {error}") from None
    return _checked(answer)


def running_server(config: Config) -> Address | None:
    """Return the address that a server left in the data folder, if it answers there."""
    try:
        found = json.loads((config.data_dir / ADDRESS_FILE).read_text())
        address = Address(url=found["url"], token=found["token"])
        key, nonce = str(found["proof_key"]), secrets.token_hex(32)
        proof = hmac.digest(key.encode(), nonce.encode(), "sha256").hex()
        # Not through a proxy, wherever the environment names one; and no token yet: another
        # program may listen where a server was killed.
        answer = httpx2.get(
            f"{address.url}/healthz", params={"nonce": nonce}, timeout=5, trust_env=False
        )
        is_ours = answer.json()["proof"] == proof
    except (OSError, ValueError, KeyError, TypeError, httpx2.HTTPError, httpx2.InvalidURL):
        return None
    return address if is_ours else None


def write_address(folder: Path, address: Address, *, proof_key: str) -> Path:
    """Leave the address for terminals of this user; readable by nobody else.

    With `proof_key` the server signs the nonces by which `running_server` knows it again.
    """
    file = folder / ADDRESS_FILE
    fresh = file.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        json.dump({"url": address.url, "token": address.token, "proof_key": proof_key}, stream)
    fresh.replace(file)
    return file


def _address(path: tuple[str, ...]) -> str:
    # A segment is what a person typed: it must not lead elsewhere.
    return "/".join(("/api/v1", *(quote(segment, safe="") for segment in path)))


def _over_network(address: Address) -> httpx2.AsyncClient:
    try:
        return httpx2.AsyncClient(
            base_url=address.url,
            headers=_bearer(address.token),
            timeout=_TIMEOUT_S,
            trust_env=False,
        )
    except (httpx2.InvalidURL, UnicodeEncodeError) as error:
        msg = f"`{URL_VARIABLE}` or `{TOKEN_VARIABLE}` cannot be used: {error}"
        raise InputError(msg) from None


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _checked(answer: httpx2.Response) -> JsonObject:
    try:
        # Not the strict limit of what comes in: a long list is our own answer.
        body: Json = parse(answer.content, max_bytes=len(answer.content)) if answer.content else {}
    except JsonError:
        body = None
    if not isinstance(body, dict):
        msg = f"`{answer.request.url}` answered {answer.status_code} and nothing that we can read"
        raise UnavailableError(f"{msg}; is it an Interlock server?")
    if answer.is_success:
        return body
    error = body.get("error")
    # The token endpoint answers as OAuth has it.
    plain: JsonObject = {"message": body.get("error_description", error)}
    found = error if isinstance(error, dict) else plain if error else {}
    problems = found.get("problems")
    raise RefusedError(
        str(found.get("message", f"the server answered {answer.status_code}")),
        status=answer.status_code,
        problems=tuple(map(str, problems)) if isinstance(problems, list) else (),
    )
