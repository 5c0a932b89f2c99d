"""An installation whose tools are looked at and never called."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager

from interlock.calls.road import LiveProject
from interlock.domain.canonical import JsonObject
from interlock.domain.errors import UnavailableError
from interlock.domain.ids import TenantId, ToolName
from interlock.domain.principal import DEFAULT_TENANT
from interlock.domain.tool import Environment
from interlock.manifest import apply
from interlock.runtime.registry.trial import Trial, Trials
from interlock.store import migrate
from interlock.store.engine import Database

SECRET = "a-secret-of-the-tests"  # looked for in what is told


class TrialBench:
    """A database with a project, and the secrets that can be read."""

    def __init__(
        self, url: str, project: Mapping[str, str], *, stored: frozenset[str] = frozenset()
    ) -> None:
        self.db = Database(url)
        migrate.upgrade(self.db)
        self.stored = stored
        self.trials = Trials(
            db=self.db,
            live=LiveProject({}),
            resolve=self._resolve,
            variables={},
            functions=frozenset(),
        )
        self.apply(project)

    def apply(self, project: Mapping[str, str]) -> None:
        """Apply a project as the next release."""
        apply.apply(self.db, project, by="tests")

    def run(
        self,
        tool: str,
        *,
        environment: Environment = "dev",
        arguments: JsonObject | None = None,
        tenant: TenantId = DEFAULT_TENANT,
    ) -> Trial:
        """Try out a tool."""
        return self.trials.run(ToolName(tool), environment, tenant=tenant, arguments=arguments)

    def _resolve(self, reference: str) -> str:
        if reference in self.stored:
            return SECRET
        raise UnavailableError(f"no secret can be read at `{reference}`")


@contextmanager
def bench(
    url: str, project: Mapping[str, str], *, stored: frozenset[str] = frozenset()
) -> Iterator[TrialBench]:
    """Open a bench and close its database."""
    opened = TrialBench(url, project, stored=stored)
    with closing(opened.db):
        yield opened


@contextmanager
def listener() -> Iterator[tuple[str, socket.socket]]:
    """Listen on loopback without answering; return the address and what takes connections."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", listening


def states(trial: Trial) -> dict[str, str]:
    """Return how each check stands, by name."""
    return {check.name: check.state for check in trial.checks}


def said(trial: Trial, name: str) -> str:
    """Return what one check says."""
    return "; ".join(check.message for check in trial.checks if check.name == name)
