"""IBM ContextForge as the proofs compare with it: in an environment of its own, as it comes.

Set are only its secrets, its database (Postgres, which its documentation names for production),
that it may reach the loopback, where the tools are, and no limit on requests a minute, which by
default lets 100 through. One process of uvicorn; plugins, Redis and console are off by default.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import httpx2
import psutil

from interlock.domain.canonical import JsonObject
from interlock.testing.process import free_port
from proofs.processes import listening
from scripts import peers, postgres

NAME = "contextforge"
DEFAULTS = {
    "SSRF_ALLOW_LOCALHOST": "true",
    "SSRF_ALLOW_PRIVATE_NETWORKS": "true",
    "RATE_LIMITING_ENABLED": "false",
}
RETRY_OFF = {"RETRY_MAX_ATTEMPTS": "1"}
"""Its setting counts attempts: with 0 it sends nothing at all."""
_ADMIN = "admin@example.com"
_LISTED_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextForge:
    """A running one: where it is, a token of its administrator, and its processes."""

    url: str
    token: str
    processes: tuple[psutil.Process, ...]

    def ask(self, method: str, path: str, body: JsonObject | None = None) -> object:
        """Ask its REST interface; raises `RuntimeError` with what it says if it refuses."""
        headers = {"Authorization": f"Bearer {self.token}"}
        answer = httpx2.request(
            method, self.url + path, json=body, headers=headers, timeout=60, trust_env=False
        )
        if not answer.is_success:
            raise RuntimeError(f"ContextForge, {method} {path}: {answer.text[:500]}")
        return answer.json()

    def serve_all(self) -> str:
        """Bundle all tools in a virtual server, as an agent meets them; return its MCP address."""
        deadline_s = time.monotonic() + _LISTED_S
        while not (tools := cast("list[JsonObject]", self.ask("GET", "/tools"))):
            if time.monotonic() > deadline_s:
                raise RuntimeError("ContextForge lists no tools")
            time.sleep(0.2)
        ids = [tool["id"] for tool in tools]
        server: JsonObject = {"name": "all", "description": "all", "associated_tools": ids}
        made = cast("JsonObject", self.ask("POST", "/servers", {"server": server}))
        return f"{self.url}/servers/{made['id']}/mcp"


def version() -> str:
    """Return the version that is compared with."""
    return peers.versions(NAME)["mcp-contextforge-gateway"]


def python() -> str:
    """Return the newest Python that its authors test it with, 3.12, where that runs; else ours."""
    found = shutil.which("python3.12")
    if found is None or subprocess.run([found, "-c", ""], capture_output=True).returncode != 0:  # noqa: PLW1510  # asked here
        return sys.executable
    return found


@contextmanager
def running(folder: Path, more: Mapping[str, str] | None = None) -> Iterator[ContextForge]:
    """Install it as locked, if it is not, and run it on a Postgres server of its own."""
    place = peers.install(NAME, python=python())
    with postgres.running_server() as server:
        # INVARIANT: it was started here.
        assert server.keeper is not None
        port = free_port()
        key = secrets.token_urlsafe(48)
        environment = {
            "DATABASE_URL": server.create_database(),
            "JWT_SECRET_KEY": key,
            "AUTH_ENCRYPTION_SECRET": secrets.token_urlsafe(48),
            "PLATFORM_ADMIN_EMAIL": _ADMIN,
            "PLATFORM_ADMIN_PASSWORD": f"{secrets.token_urlsafe(24)}-A1",
            **DEFAULTS,
            **(more or {}),
        }
        program = place / "bin" / "mcpgateway"
        command: list[str | Path] = [program, "--host", "127.0.0.1", "--port", str(port)]
        with listening(command, folder=folder, port=port, environment=environment) as process:
            yield ContextForge(
                url=f"http://127.0.0.1:{port}",
                token=_token(place / "bin" / "python", key),
                processes=(process, psutil.Process(server.keeper.pid)),
            )


def _token(interpreter: Path, key: str) -> str:
    """Return a token as its own tool makes it."""
    module = "mcpgateway.utils.create_jwt_token"
    command = [str(interpreter), "-m", module, "--username", _ADMIN, "--exp", "10080"]
    environment = {"JWT_SECRET_KEY": key, "AUTH_ENCRYPTION_SECRET": secrets.token_urlsafe(48)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()[-1]
