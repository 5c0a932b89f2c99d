"""Tools: registered, versioned operations on outside systems, and what a repeat of them means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.ids import TenantId, ToolName, WorkflowName

Environment = Literal["dev", "stage", "prod"]
ENVIRONMENTS: tuple[Environment, ...] = ("dev", "stage", "prod")


class Group(StrEnum):
    """What policy sees: may it be called? `destructive` is a kind of `write`."""

    READ = "read"
    WRITE = "write"
    DESTRUCTIVE = "destructive"


class EffectClass(StrEnum):
    """How a repeat is kept harmless: may it be sent again? Undeclared is `blind`."""

    READ = "read"
    KEYED = "keyed"
    CONDITIONAL = "conditional"
    PROBED = "probed"
    BLIND = "blind"


class ConnectorKind(StrEnum):
    """Code that reaches a tool."""

    HTTP = "http"
    MCP = "mcp"
    PYTHON = "python"
    SQL = "sql"


ServerKind = Literal["http", "mcp-http", "mcp-stdio", "python", "python-sandbox", "postgres"]
McpKind = Literal["tool", "resource", "prompt"]
SystemKind = Literal[
    "ci", "code", "crm", "documents", "finance", "mail", "other", "ticketing", "warehouse"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """An outside system, owned by a team; `tenant` None means shared."""

    name: str
    title: str
    owner: str
    tenant: TenantId | None = None
    kind: SystemKind = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """At most `calls` in a row, and as many in every `per_s` seconds, over all workers."""

    calls: int
    per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One reachable instance of a system in one environment.

    `kind` `http` and `mcp-http` need `url` (for `mcp-http` the full endpoint), as `postgres` does
    (`postgres://HOST:PORT/DATABASE`); `mcp-stdio` needs
    `argv` (started without a shell, with only the variables named in `environment_variables`, and
    only if its program has the digest `program_pin`, where that is given);
    `python` needs nothing; `python-sandbox` needs `code`, the texts of its files by path, which are
    part of the release. A plain-http or private address must be named here exactly.
    `auth` says how the credential is sent: `basic` (secret is `user:password`), `bearer`,
    `header:<Name>` or `none`. Its breaker is open for `breaker_open_s` at first, and ten times that
    at most.
    """

    name: str
    system: str
    environment: Environment
    kind: ServerKind
    url: str | None = None
    argv: tuple[str, ...] = ()
    program_pin: str | None = None
    environment_variables: tuple[str, ...] = ()
    auth: str = "none"
    headers: Mapping[str, str] = field(default_factory=dict)
    rate: Rate | None = None
    breaker_open_s: float = 30.0
    code: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one call: seconds, and bytes of request and response (after decompression)."""

    timeout_s: float = 20.0
    request_bytes: int = 65_536
    response_bytes: int = 262_144


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """How a call becomes an HTTP request: templates over `in:`, `effect:` and `guard:`.

    `path` holds `{name}` segments filled from `path_args` (percent-encoded whole). `query` and
    `body` members whose pointer finds nothing are left out. `key_header` is where a `keyed` tool
    takes our idempotency key; `version_header` where a `conditional` one takes the version.
    `result` maps the output that agents see from the reply: templates over `out:` (parsed body),
    `status:` and `etag:`; None means the body as it is.
    """

    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    path_args: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, Json] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Json = None
    key_header: str | None = None
    version_header: str | None = None
    result: Json = None


@dataclass(frozen=True, slots=True, kw_only=True)
class McpCall:
    """What of an MCP server is called: a tool or a prompt by its name, a resource by its URI.

    A resource's URI may hold `{name}` for arguments. `key_argument` takes our key, if any does.
    `pin` is the digest of what the server said of it when it was reviewed, in all its words; None:
    nobody compares.
    """

    upstream: str
    kind: McpKind = "tool"
    key_argument: str | None = None
    pin: str | None = None

    @property
    def offer(self) -> str:
        """Return what tells it from all else that its server offers.

        >>> McpCall(upstream="add").offer, McpCall(upstream="notes://all", kind="resource").offer
        ('add', 'resource notes://all')
        """
        return self.upstream if self.kind == "tool" else f"{self.kind} {self.upstream}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonCall:
    """The name under which a function was registered in code (never an import path)."""

    function: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlQuery:
    """One statement that reads, with `%(name)s` for each of its parameters, which are templates.

    A parameter whose pointer finds nothing is null. The result is `{"rows": [...]}`, each row an
    object by column; with `returns` `row` it is the only row, or null.
    """

    statement: str
    parameters: Mapping[str, Json] = field(default_factory=dict)
    returns: Literal["rows", "row"] = "rows"


ToolRequest = HttpRequest | McpCall | PythonCall | SqlQuery
"""What a connector makes of a call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """What makes the outside reject a second write.

    `version`: the version sent (`version` is a pointer into the arguments, for instance
    `in:/etag`) must still hold; refused with a status in `refused` (412, 428).
    `one_time_link`: `obtain` (`POST /path`) returns a link at pointer `link`, fetched before the
    intent and stored with it; a second use answers a status in `refused`.
    `client_id`: our key is the id of the new record; a second create answers a status in `refused`.
    """

    kind: Literal["version", "one_time_link", "client_id"]
    refused: tuple[int, ...]
    version: str | None = None
    obtain: str | None = None
    link: str | None = None
    ttl_s: int = 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A read tool that finds the effect by our reference.

    `args` are templates over `in:` and `effect:` (`effect:id`, `effect:key`). The probe's output
    is searched at pointer `found` (a list: its length is what was found; an absent member or null
    is 0, any other value 1). With `equals` (templates like `args`), a single found object counts
    only if these members have these values: how an update is recognised as applied. `result`
    (templates over `found:`) rebuilds the output that the original call would have had.
    `lag_s` is how long the outside may take to show a write.
    """

    tool: ToolName
    version: int
    args: JsonObject
    found: str
    equals: JsonObject = field(default_factory=dict)
    result: Json = None
    lag_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectSpec:
    """Effect class and what it rests on.

    `key_ttl_s`: life of the upstream's memory of our key (`keyed`). `no_effect`: what proves that
    nothing was stored: HTTP statuses, and `error` for the error result of an MCP server or a
    function; every other failure is ambiguous. `in_progress` and
    `key_reused`: statuses of a `keyed` upstream for "still working" and "same key, other body".
    """

    effect_class: EffectClass = EffectClass.BLIND
    key_ttl_s: int | None = None
    guard: Guard | None = None
    probe: Probe | None = None
    no_effect: tuple[int | Literal["error"], ...] = ()
    in_progress: tuple[int, ...] = ()
    key_reused: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPart:
    """One part of a business key: a pointer `in:/...` and how its text is folded.

    `exact` takes the text as it is; `lower` trims and folds case; `words` also drops punctuation
    and repeated spaces.
    """

    at: str
    fold: Literal["exact", "lower", "words"] = "exact"


@dataclass(frozen=True, slots=True, kw_only=True)
class BusinessKey:
    """What makes two effects the same thing to a person, inside a window of hours."""

    parts: tuple[KeyPart, ...]
    duplicate_window_h: int = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordPointer:
    """Where a call names an outside record it reads or writes (`in:` or `out:` pointer).

    A pointer to a list names one record per item, each at `item` inside it ("" for itself).
    """

    mode: Literal["read", "create", "update", "delete"]
    type: str
    id: str
    item: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a result does to the run's labels. Undeclared: untrusted and label `undeclared`."""

    labels: frozenset[str] = frozenset({"undeclared"})
    is_trusted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sink:
    """Labels that arguments may carry, and whether the destination is outside our trust boundary.

    Undeclared accepts nothing.
    """

    accepts: frozenset[str] = frozenset()
    is_external: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Compensation:
    """The tool version that undoes a call; `args` are templates over `in:` and `out:`."""

    tool: ToolName
    version: int
    args: JsonObject
    within_h: int = 72


@dataclass(frozen=True, slots=True, kw_only=True)
class Deprecation:
    """That a version is to be replaced, by which, and until when: days as `2026-11-30`, in UTC.

    Calls are not stopped by it. After `until` no project is applied in which it is still called.
    """

    since: str
    reason: str
    until: str | None = None
    tool: ToolName | None = None
    version: int | None = None

    @property
    def successor(self) -> str | None:
        """Return the version that replaces it, as `name@version`."""
        return None if self.tool is None else f"{self.tool}@{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyView:
    """What Cedar sees beyond the mapped arguments: hidden members and derived values.

    `derived` maps a name to `<function>(<pointer>)`, a named pure function of `policy.context`.
    """

    hidden: tuple[str, ...] = ()
    derived: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentBinding:
    """Where a tool version goes in one environment: a server name and a credential reference.

    `credentials` may be a reference for each workflow; a workflow that it does not name has none.
    One that `is_past` serves calls that were proposed before, and probes and undoes by version.
    """

    server: str
    credentials: str | Mapping[WorkflowName, str] | None = None
    rate: Rate | None = None
    is_past: bool = False

    @property
    def references(self) -> tuple[str, ...]:
        """Return every credential that it names."""
        if self.credentials is None or isinstance(self.credentials, str):
            return () if self.credentials is None else (self.credentials,)
        return tuple(self.credentials[name] for name in sorted(self.credentials))

    def credentials_of(self, workflow: WorkflowName | None) -> str | None:
        """Return the credential that a workflow uses, or None if it has none here."""
        if self.credentials is None or isinstance(self.credentials, str):
            return self.credentials
        return None if workflow is None else self.credentials.get(workflow)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolVersion:
    """One published version of a tool; it never changes, but for where it goes and `deprecation`.

    Undeclared `group` is `write`, undeclared effect class `blind`. `request` fits `connector`.
    `price_micro_usd` is the declared price of one call. `title` is what people read,
    `description` what agents read.
    """

    name: ToolName
    version: int
    owner: str
    title: str
    description: str
    system: str
    connector: ConnectorKind
    request: ToolRequest
    input_schema: JsonObject
    output_schema: JsonObject
    group: Group = Group.WRITE
    is_egress: bool = False
    is_irreversible: bool = False
    risk: int = 1
    limits: Limits = field(default_factory=Limits)
    policy_view: PolicyView = field(default_factory=PolicyView)
    effect: EffectSpec = field(default_factory=EffectSpec)
    business_key: BusinessKey | None = None
    records: tuple[RecordPointer, ...] = ()
    source: Source = field(default_factory=Source)
    sink: Sink = field(default_factory=Sink)
    redact: Mapping[str, Literal["drop", "token", "last4", "keep"]] = field(default_factory=dict)
    compensation: Compensation | None = None
    price_micro_usd: int = 0
    environments: Mapping[Environment, EnvironmentBinding] = field(default_factory=dict)
    deprecation: Deprecation | None = None

    @property
    def mcp_kind(self) -> McpKind:
        """What MCP clients know it as."""
        return self.request.kind if isinstance(self.request, McpCall) else "tool"

    @property
    def is_write(self) -> bool:
        """Whether policy treats it as a kind of `write`."""
        return self.group is not Group.READ


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A tool version in one environment, with the pin that fixes it, as one workflow has it.

    `pin` is the digest of what cannot change. A quarantined binding denies every
    call; `reason` says why. So does one that `lacks_credentials`: it names them for each workflow,
    and not for this one.
    """

    tool: ToolVersion
    environment: Environment
    server: Server
    pin: str
    credentials: str | None = None
    rate: Rate | None = None
    is_quarantined: bool = False
    reason: str | None = None
    lacks_credentials: bool = False
