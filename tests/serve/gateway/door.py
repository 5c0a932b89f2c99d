"""A gateway that listens: an installation with a worker behind a real server on loopback."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, cast

import httpx2
import uvicorn
from mcp.client import Client
from mcp.client.auth import TokenStorage
from mcp.client.extension import ClientExtension
from mcp.client.session import ElicitationFnT
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from mcp_types import CallToolResult, RequestParamsMeta

from interlock.app import Interlock
from interlock.calls.approve import answer
from interlock.config import Config, ModelSettings
from interlock.domain.approval import ApprovalState
from interlock.domain.canonical import JsonObject
from interlock.domain.effect import Effect
from interlock.domain.ids import AgentName, RunId, WorkflowName
from interlock.domain.principal import Principal, PrincipalKind, Role, Seat
from interlock.domain.run import Run
from interlock.manifest import apply
from interlock.serve.auth import mint_key
from interlock.serve.http import create_app
from interlock.store import approvals, effects, keys, runs
from interlock.store.keys import AgentPlace
from interlock.testing.recorder_project import OUTSIDE_AGENT, SESSIONS

DANA = Principal(
    name="dana",
    kind=PrincipalKind.USER,
    roles=frozenset({Role.APPROVER, Role.OPERATOR}),
    groups=frozenset({"data-owners"}),
)
LIMIT_S = 20
SEAT = Seat(workflow=WorkflowName(SESSIONS), agent=AgentName(OUTSIDE_AGENT))


class Door:
    """A running installation, and the ways of outside agents into it."""

    def __init__(
        self,
        folder: Path,
        project: Mapping[str, str],
        *,
        url: str | None = None,
        seat: Seat = SEAT,
        models: Mapping[str, ModelSettings] | None = None,
        public_url: str | None = None,
    ) -> None:
        self._seat = seat
        settings = Config(
            data_dir=folder / "data",
            database_url=url,
            port=0,
            models=models or {},
            public_url=public_url,
        )
        self.interlock = Interlock.open(settings)
        apply.apply(self.interlock.db, project, by="tests")
        config = uvicorn.Config(create_app(self.interlock), port=0, log_level="critical")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self.url = ""

    def key(self, *, environment: str = "dev", expires_us: int | None = None) -> tuple[str, str]:
        """Return id and secret of a new key of the agent."""
        assert environment in {"dev", "stage", "prod"}
        place = AgentPlace(seat=self._seat, environment=environment)  # type: ignore[arg-type]
        return self.interlock.db.run(
            "test.key",
            lambda tx: mint_key(
                tx,
                name="helper-1",
                kind=PrincipalKind.AGENT,
                roles=frozenset(),
                by="tests",
                expires_us=expires_us,
                place=place,
            ),
        )

    def exchange(self, key: tuple[str, str], **more: str) -> httpx2.Response:
        """Ask for tokens with a key."""
        form = {"grant_type": "client_credentials", "client_id": key[0], "client_secret": key[1]}
        return httpx2.post(f"{self.url}/oauth/token", data=form | more)

    def token(self, key: tuple[str, str] | None = None) -> str:
        """Return the token of a new session."""
        answer = self.exchange(key or self.key())
        assert 200 == answer.status_code, answer.text
        return str(answer.json()["access_token"])

    def revoke(self, key: tuple[str, str]) -> None:
        """Revoke a key, and with it its sessions."""
        self.interlock.db.run("test.revoke", lambda tx: keys.revoke_key(tx, key[0]))

    @asynccontextmanager
    async def client(
        self,
        token: str,
        *,
        mode: str = "auto",
        led: ElicitationFnT | None = None,
        extensions: Sequence[ClientExtension] = (),
    ) -> AsyncIterator[Client]:
        """Connect a stock client with a token; one with `led` can lead a person to an address."""
        http = httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=60)
        transport = streamable_http_client(f"{self.url}/mcp", http_client=http)
        connected = Client(transport, mode=mode, elicitation_callback=led, extensions=extensions)
        async with http, connected as client:
            yield client

    def effects(self, run_id: RunId) -> list[Effect]:
        """Return the calls of a session as the ledger has them."""
        with self.interlock.db.reading() as tx:
            return effects.list_for_run(tx, run_id)

    def sessions(self) -> list[Run]:
        """Return all sessions, newest first."""
        with self.interlock.db.reading() as tx:
            return runs.list_runs(tx)

    def approve(
        self, run_id: RunId, *, answer_is: Literal["approve", "reject"] = "approve"
    ) -> None:
        """Approve, or reject, all that a session waits for, as Dana."""
        with self.interlock.db.reading() as tx:
            asked = [
                approval
                for effect in effects.list_for_run(tx, run_id)
                for approval in approvals.list_for_effect(tx, effect.effect_id)
                if approval.state is not ApprovalState.APPROVED
            ]
        for approval in asked:
            answer(
                self.interlock.db,
                self.interlock.dispatch,
                approval.approval_id,
                by=DANA,
                answer=answer_is,
                digest=approval.digest,
                reason="tests",
            )

    def __enter__(self) -> Self:
        """Start worker and server."""
        self.interlock.start(work=True, schedule=False)
        self._thread.start()
        ready = threading.Event()
        for _ in range(LIMIT_S * 100):
            if self._server.started or ready.wait(0.01):
                break
        (listening,) = self._server.servers
        port = listening.sockets[0].getsockname()[1]
        self.url = self.interlock.url = f"http://127.0.0.1:{port}"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop both."""
        self._server.should_exit = True
        self._thread.join(LIMIT_S)
        self.interlock.close()


class Kept(TokenStorage):
    """The tokens of one client."""

    tokens: OAuthToken | None = None
    client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        """Return the last tokens."""
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """Keep tokens."""
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        """Return who the client is."""
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """Keep who the client is."""
        self.client = client_info


def named(key: str) -> RequestParamsMeta:
    """Return the `_meta` by which a caller names its attempt."""
    return cast("RequestParamsMeta", {"interlock/idempotency-key": key})


def text_of(result: object) -> str:
    """Return the words of a result."""
    assert isinstance(result, CallToolResult)
    (content,) = result.content
    assert content.type == "text"
    return content.text


def meta_of(result: object) -> JsonObject:
    """Return what a result says of itself."""
    assert isinstance(result, CallToolResult)
    return result.meta or {}
