"""Tries out a tool's binding: what a call needs, looked at one by one, without making a call.

Only what is registered is reached: a connection to the address of a server entry, and of an MCP
server the list of its tools. Nothing that has an effect is ever sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from interlock.calls.road import Live, LiveProject
from interlock.domain.breaker import Breaker
from interlock.domain.canonical import JsonObject
from interlock.domain.errors import InterlockError
from interlock.domain.ids import TenantId, ToolName
from interlock.domain.tool import (
    Binding,
    Environment,
    McpCall,
    McpKind,
    PythonCall,
    Server,
    ToolVersion,
)
from interlock.runtime.registry.preview import preview
from interlock.runtime.registry.seats import Standing, standings
from interlock.store import breakers, upstreams
from interlock.store.engine import Database
from interlock.tools import upstream
from interlock.tools.addresses import target_of
from interlock.tools.contract import check_schema
from interlock.tools.discover import offered
from interlock.tools.egress import connect
from interlock.tools.requests.http import authorization

State = Literal["ok", "failed", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One finding: what was looked at, how it stands, and what to do about it if it failed."""

    name: str
    state: State
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """How one environment stands; `request` is what the given arguments would have sent."""

    environment: Environment
    server: str | None
    checks: tuple[Check, ...]
    seats: tuple[Standing, ...] = ()
    request: JsonObject | None = None

    @property
    def is_ok(self) -> bool:
        """Whether nothing failed."""
        return all(check.state != "failed" for check in self.checks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trials:
    """What trying out needs: as calls have it, but without anything that sends one.

    `variables` are for processes; `functions` are the names of the registered ones.
    """

    db: Database
    live: LiveProject
    resolve: Callable[[str], str]
    variables: Mapping[str, str]
    functions: frozenset[str]

    def run(
        self,
        name: ToolName,
        environment: Environment,
        *,
        tenant: TenantId,
        arguments: JsonObject | None = None,
    ) -> Trial:
        """Look at one binding of a live tool, with the seats of one tenant's workflows.

        With `arguments` they are checked, and policy is asked about them; else about some.
        """
        with self.db.reading() as tx:
            live, now_us = self.live.at(tx), tx.now_us
            binding = live.release.binding(name, environment)
            if binding is None:
                return _unbound(environment, live.release.every_live(name))
            tool = binding.tool
            pin = tool.request.pin if isinstance(tool.request, McpCall) else None
            looked = _Look(
                trials=self,
                live=live,
                binding=binding,
                tenant=tenant,
                breaker=breakers.find(tx, binding.server.name),
                known=upstreams.find(tx, [pin] if pin else []),
                seats=standings(live, binding, tenant=tenant, arguments=arguments, now_us=now_us),
            )
        return looked.trial(arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """One look at one binding; the database is not asked again."""

    trials: Trials
    live: Live
    binding: Binding
    tenant: TenantId
    breaker: Breaker | None
    known: Mapping[str, JsonObject]
    seats: tuple[Standing, ...]

    def trial(self, arguments: JsonObject | None) -> Trial:
        request: JsonObject | None = None
        secrets: dict[str, str] = {}
        checks = [
            _bound(self.binding),
            *self._credentials(secrets),
            _breaker(self.binding.server, self.breaker),
            *self._reached(next(iter(secrets.values()), None)),
            *_contract(self.binding.tool),
            *self._related(),
            _policy(self.seats, is_known=arguments is not None),
        ]
        if arguments is not None:
            try:
                request = preview(self.binding, arguments)
                checks.append(_ok("arguments", "they fit the contract and make a request"))
            except InterlockError as error:
                checks.append(_failed("arguments", error.message))
        return Trial(
            environment=self.binding.environment,
            server=self.binding.server.name,
            checks=tuple(checks),
            seats=self.seats,
            request=request,
        )

    def _credentials(self, secrets: dict[str, str]) -> Iterator[Check]:
        """Resolve each reference as a send would; what is found goes into `secrets` only."""
        references = self._references()
        if not references:
            yield _ok("credentials", "none are declared for these workflows")
        for reference in references:
            try:
                secret = self.trials.resolve(reference)
                authorization(self.binding.server.auth, secret)
            except InterlockError as error:
                hint = f"; run `interlock secret set {reference}`"
                yield _failed("credentials", f"{error.message}{hint}")
            else:
                secrets[reference] = secret
                yield _ok("credentials", f"`{reference}` can be read and sent")

    def _references(self) -> tuple[str, ...]:
        """Return the credentials that the tenant's workflows have, each once."""
        target = self.binding.tool.environments[self.binding.environment]
        if not isinstance(target.credentials, Mapping):
            return target.references
        workflows = self.live.release.workflows
        own = (
            reference
            for name, reference in sorted(target.credentials.items())
            if name in workflows and workflows[name].tenant == self.tenant
        )
        return tuple(dict.fromkeys(own))

    def _reached(self, secret: str | None) -> Iterator[Check]:
        server, tool = self.binding.server, self.binding.tool
        if server.url is not None:
            try:
                where = asyncio.run(connect(target_of(server.url, server.environment)))
            except InterlockError as error:
                yield _failed("server", f"{error.message}; correct its entry or start it")
                if isinstance(tool.request, McpCall):
                    yield _skipped("upstream", "the server was not reached")
                return
            yield _ok("server", f"`{where}` takes connections; no request was sent")
        if isinstance(tool.request, PythonCall):
            yield _function(tool.request.function, self.trials.functions)
        if isinstance(tool.request, McpCall):
            yield self._listed(tool.request.kind, secret)

    def _listed(self, kind: McpKind, secret: str | None) -> Check:
        server = self.binding.server
        if server.auth != "none" and secret is None:
            return _skipped("upstream", "the server wants credentials, and none can be read")
        asked = offered(server, (kind,), secret=secret, variables=self.trials.variables)
        try:
            now = upstream.definitions(asyncio.run(asked))
        except InterlockError as error:
            what = "the program of its `argv`" if server.argv else "its address"
            return _failed("upstream", f"{error.message}; see that {what} is an MCP server")
        tools = [self.binding.tool]
        [standing] = upstream.compare(tools, server, offered=now, known=self.known)
        named = f"`{standing.upstream}`"
        if standing.upstream not in now:
            names = ", ".join(f"`{name}`" for name in sorted(now)) or "no tools"
            return _failed("upstream", f"the server does not offer {named}, it offers {names}")
        if standing.state == "changed":
            hint = f"look at it with `interlock tool check {server.name}`, then pin it"
            return _failed("upstream", f"{standing.reason}; {hint}")
        if standing.state == "unpinned":
            hint = f"`interlock tool pin {standing.tool}` compares it from then on"
            return _ok("upstream", f"{named} is offered, and not pinned; {hint}")
        return _ok("upstream", f"{named} is offered as it was reviewed")

    def _related(self) -> Iterator[Check]:
        """Look for the tools that this one leans on, in the same environment."""
        tool, release = self.binding.tool, self.live.release
        for check, other in (("probe", tool.effect.probe), ("compensation", tool.compensation)):
            if other is None:
                continue
            found = release.tool_version(other.tool, other.version)
            bound = None if found is None else release.bind(found, self.binding.environment)
            named = f"`{other.tool}@{other.version}`"
            if bound is None:
                yield _failed(check, f"{named} is not bound here; bind it in its manifest")
            elif bound.is_quarantined:
                yield _failed(check, f"{named} is quarantined: {bound.reason}; pin it again")
            else:
                yield _ok(check, f"{named} is bound here")


def _unbound(environment: Environment, bound_in: Collection[Environment]) -> Trial:
    bound = ", ".join(f"`{name}`" for name in bound_in) or "none"
    message = f"it is not bound in `{environment}`, only in {bound}; add it to `environments`"
    failed = _failed("binding", message)
    return Trial(environment=environment, server=None, checks=(failed,))


def _bound(binding: Binding) -> Check:
    named = f"version {binding.tool.version} on `{binding.server.name}`"
    if binding.is_quarantined:
        hint = f"look at it with `interlock tool check {binding.server.name}`, then pin it"
        return _failed("binding", f"{named} is quarantined: {binding.reason}; {hint}")
    return _ok("binding", named)


def _breaker(server: Server, breaker: Breaker | None) -> Check:
    if breaker is None:
        return _ok("breaker", "calls are sent")
    hint = f"wait, or run `interlock tool breaker close {server.name}`"
    return _failed("breaker", f"calls wait: {breaker.reason}; {hint}")


def _function(name: str, functions: frozenset[str]) -> Check:
    if name in functions:
        return _ok("function", f"`{name}` is registered")
    return _failed("function", f"`{name}` is not registered here; install the package that has it")


def _contract(tool: ToolVersion) -> Iterator[Check]:
    problems = [
        f"{side}: {message}"
        for side, schema, must_be_closed in (
            ("input", tool.input_schema, tool.is_write),
            ("output", tool.output_schema, False),
        )
        for message in check_schema(schema, must_be_closed=must_be_closed)
    ]
    if problems:
        yield _failed("contract", f"{'; '.join(problems)}; correct the schema in a new version")
    else:
        yield _ok("contract", "both schemas compile")


def _policy(seats: tuple[Standing, ...], *, is_known: bool) -> Check:
    if not seats:
        return _failed("policy", "no seat is granted it; add it to the `tools` of an agent")
    able = [f"`{one.seat}` {one.words}" for one in seats if one.is_able]
    if able:
        return _ok("policy", ("" if is_known else "with some arguments ") + "; ".join(able))
    refused = "; ".join(f"`{one.seat}` {one.words}" for one in seats)
    return _failed("policy", f"{refused}; see the grants and the autonomy of the workflow")


def _ok(name: str, message: str) -> Check:
    return Check(name=name, state="ok", message=message)


def _failed(name: str, message: str) -> Check:
    return Check(name=name, state="failed", message=message)


def _skipped(name: str, message: str) -> Check:
    return Check(name=name, state="skipped", message=message)
