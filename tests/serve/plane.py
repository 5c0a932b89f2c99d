"""An installation on SQLite behind its HTTP application, without a network or a worker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2

from interlock.app import Interlock
from interlock.config import Config
from interlock.domain.canonical import JsonObject, parse
from interlock.domain.clock import Clock
from interlock.domain.ids import TenantId
from interlock.domain.principal import DEFAULT_TENANT, PrincipalKind, Role
from interlock.manifest import apply
from interlock.serve.auth import SESSION_COOKIE, hash_secret, mint_key, mint_link, start_session
from interlock.serve.http import create_app
from interlock.store import keys
from interlock.store.tx import Tx

API = "/api/v1"
EVERY_ROLE = frozenset(Role)


class Plane:
    """An open installation; `send` asks it as the network would."""

    def __init__(
        self,
        folder: Path,
        *,
        clock: Clock | None = None,
        database_url: str | None = None,
        config: Config | None = None,
    ) -> None:
        settings = config or Config(data_dir=folder / "data", database_url=database_url)
        self.interlock = Interlock.open(settings, clock=clock)
        self.app = create_app(self.interlock)

    def apply(self, files: Mapping[str, str]) -> None:
        """Apply a project as the next release."""
        apply.apply(self.interlock.db, files, by="tests")

    def key(
        self,
        *roles: Role,
        name: str = "ops",
        groups: Iterable[str] = (),
        tenant: TenantId = DEFAULT_TENANT,
        expires_us: int | None = None,
    ) -> str:
        """Return the token of a new key."""
        _, token = self.interlock.db.run(
            "test.key",
            lambda tx: mint_key(
                tx,
                name=name,
                kind=PrincipalKind.USER,
                roles=frozenset(roles),
                groups=frozenset(groups),
                tenant=tenant,
                by="tests",
                expires_us=expires_us,
            ),
        )
        return token

    def session(self, token: str) -> dict[str, str]:
        """Return the headers of a new console session of a key's principal."""

        def start(tx: Tx) -> tuple[str, str]:
            found = keys.find_key(tx, hash_secret(token))
            assert found is not None
            session_id = start_session(tx, mint_link(tx, found.key_id))
            session = keys.find_session(tx, hash_secret(session_id))
            assert session is not None
            return session_id, session.csrf_token

        session_id, csrf_token = self.interlock.db.run("test.session", start)
        return {"Cookie": f"{SESSION_COOKIE}={session_id}", "X-CSRF-Token": csrf_token}

    async def send(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        body: JsonObject | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        """Send one request; `content` is a body as raw JSON text."""
        given = dict(headers or {})
        if token is not None:
            given["Authorization"] = f"Bearer {token}"
        if content is not None:
            given.setdefault("Content-Type", "application/json")
        transport = httpx2.ASGITransport(app=self.app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(
                method,
                path,
                json=body,
                content=content,
                headers=[(name.encode(), value.encode("latin-1")) for name, value in given.items()],
            )

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the installation."""
        self.interlock.close()


def body_of(response: httpx2.Response) -> JsonObject:
    """Return the JSON object of an answer."""
    value = parse(response.content)
    assert isinstance(value, dict)
    return value


def rows(body: JsonObject, key: str) -> list[JsonObject]:
    """Return the objects of a list in an answer."""
    listed = body[key]
    assert isinstance(listed, list)
    return [item for item in listed if isinstance(item, dict)]


def error_of(response: httpx2.Response) -> tuple[int, str, str]:
    """Return status, code and message of an error answer."""
    error = body_of(response)["error"]
    assert isinstance(error, dict)
    return response.status_code, str(error["code"]), str(error["message"])
