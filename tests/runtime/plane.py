"""A whole plane in one process for tests: SQLite, real policy and tools, models as functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from interlock.agents.models import ModelCatalog
from interlock.calls.durable import Retry
from interlock.calls.execute import ConnectorSender
from interlock.calls.road import LiveProject, Price, Road
from interlock.domain.agent import AgentLimits, AgentSpec
from interlock.domain.canonical import Json, JsonObject
from interlock.domain.effect import Effect
from interlock.domain.ids import AgentName, RunId, ToolName, WorkflowName
from interlock.domain.principal import DEFAULT_TENANT
from interlock.domain.release import PolicyFile, Release
from interlock.domain.run import Run
from interlock.domain.tool import (
    ConnectorKind,
    EffectClass,
    EffectSpec,
    EnvironmentBinding,
    Group,
    PythonCall,
    Server,
    Source,
    System,
    ToolVersion,
)
from interlock.domain.trace import Span
from interlock.domain.workflow import (
    AutonomyDeclaration,
    FailureMode,
    SeatSpec,
    Step,
    Success,
    Trigger,
    WorkflowSpec,
)
from interlock.policy.defaults import DEFAULT_POLICIES
from interlock.policy.engine import ModelResource
from interlock.runtime.steps import Services
from interlock.runtime.triggers import Intake, start_manual
from interlock.runtime.workflows import close_trace, run_segment
from interlock.store import effects, migrate, registry, runs, spans
from interlock.store.engine import CrashPoints, Database
from interlock.store.tx import Tx
from interlock.testing.clock import ManualClock
from interlock.testing.durable import MemoryEngine
from interlock.tools.connectors.pool import ConnectorPool
from interlock.tools.functions import PythonFunction, python_function

WORKFLOW = WorkflowName("triage")
FIND = ToolName("desk.issue.find")
CREATE = ToolName("desk.issue.create")
RETIRE = ToolName("desk.issue.retire")
GRANT = PolicyFile(
    path="grants/desk.cedar",
    text="""@id("desk-writes") @owner("it") @why("The desk's tools")
permit (principal, action in Action::"write", resource in System::"desk");""",
)
MANUAL = Trigger(name="by-hand", kind="manual")
STOP = FailureMode(code="*", then="stop")
ANY_OBJECT: JsonObject = {"type": "object"}

T = TypeVar("T")
ModelFunction = Callable[[list[ModelMessage], AgentInfo], ModelResponse]


def text(answer: str) -> ModelResponse:
    """Return a model's final answer."""
    return ModelResponse(parts=[TextPart(answer)])


def calls(*wanted: tuple[ToolName, Mapping[str, Json] | str]) -> ModelResponse:
    """Return a model's wish to call tools."""
    parts = [
        ToolCallPart(
            tool_name=name.replace(".", "__"),
            args=args if isinstance(args, str) else {**args},
            tool_call_id=f"call{index}",
        )
        for index, (name, args) in enumerate(wanted)
    ]
    return ModelResponse(parts=parts)


def workflow(*steps: Step, **changes: object) -> WorkflowSpec:
    """Return the workflow `triage` with these steps; its agents may call every tool."""
    agents = {agent for step in steps for agent in (step.agent, step.handoff) if agent}
    plain = WorkflowSpec(
        name=WORKFLOW,
        version=1,
        title="Triage",
        owner="desk-owners",
        department="it",
        triggers=(MANUAL,),
        input_schema=ANY_OBJECT,
        seats=tuple(
            SeatSpec(agent=agent, tools=(FIND, CREATE, RETIRE)) for agent in sorted(agents)
        ),
        tools=(FIND, CREATE, RETIRE),
        steps=steps,
        failure_modes=(STOP,),
        success=Success(end_state="done", end_states=("done",), objective=0.9, within_s=60),
        autonomy={"dev": AutonomyDeclaration(level=2, by="ann", reason="test")},
    )
    # A dataclass checks nothing at run time; the keys are typed by their use in these tests.
    return replace(plain, **changes)  # type: ignore[arg-type]


def agent(name: str, **changes: object) -> AgentSpec:
    """Return an agent that answers in plain text."""
    plain = AgentSpec(
        name=AgentName(name),
        version=1,
        title=name,
        owner="it",
        sponsor="sam",
        instructions=f"You are {name}.",
        limits=AgentLimits(),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]  # as above


def tool(name: ToolName, group: Group, effect_class: EffectClass, **changes: object) -> ToolVersion:
    """Return a Python tool of the system `desk`, bound in dev."""
    plain = ToolVersion(
        name=name,
        version=1,
        owner="it",
        title=name,
        description=f"Does {name}.",
        system="desk",
        connector=ConnectorKind.PYTHON,
        request=PythonCall(function=name),
        input_schema={
            "type": "object",
            "additionalProperties": False,
            "properties": {"title": {"type": "string"}},
            "required": ["title"],
        },
        output_schema=ANY_OBJECT,
        group=group,
        effect=EffectSpec(effect_class=effect_class),
        source=Source(labels=frozenset(), is_trusted=True),
        environments={"dev": EnvironmentBinding(server="desk-dev")},
    )
    return replace(plain, **changes)  # type: ignore[arg-type]  # as above


TOOLS = (
    tool(FIND, Group.READ, EffectClass.READ),
    tool(CREATE, Group.WRITE, EffectClass.BLIND),
    tool(RETIRE, Group.WRITE, EffectClass.BLIND),
)


def release(
    spec: WorkflowSpec,
    *agents: AgentSpec,
    tools: tuple[ToolVersion, ...] = TOOLS,
    policies: tuple[PolicyFile, ...] = (),
) -> Release:
    """Return a project with one workflow and the tools of one system."""
    return Release(
        systems={"desk": System(name="desk", title="Desk", owner="desk-owners")},
        servers={
            "desk-dev": Server(name="desk-dev", system="desk", environment="dev", kind="python")
        },
        tools={each.name: each for each in tools},
        agents={each.name: each for each in agents},
        workflows={spec.name: spec},
        policies=(*DEFAULT_POLICIES, GRANT, *policies),
        labels=("pii",),
        teams=("security", "desk-owners", "it"),
    )


@dataclass
class Desk:
    """The outside world: the issues that were made, and what each tool answers.

    Each call takes a millisecond, so that the order of effects shows. `is_watched_by` is called
    while an issue is being made, before anybody hears of it.
    """

    clock: ManualClock
    titles: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    retired: list[str] = field(default_factory=list)
    is_watched_by: Callable[[], object] = lambda: None

    def find(self, title: str) -> Json:
        """Find an issue."""
        self.clock.advance(0.001)
        self.asked.append(title)
        return {"found": title}

    def create(self, title: str) -> Json:
        """Create an issue; the outcome of one with the title `lost` is unknown."""
        self.clock.advance(0.001)
        self.titles.append(title)
        self.is_watched_by()
        if title == "lost":
            raise RuntimeError("the answer was lost")
        return {"id": f"issue{len(self.titles)}"}

    def retire(self, title: str) -> Json:
        """Retire an issue."""
        self.clock.advance(0.001)
        self.retired.append(title)
        return {"id": title}

    def functions(self) -> Mapping[str, PythonFunction]:
        """Return the functions of the tools."""
        return {
            FIND: python_function(FIND, self.find),
            CREATE: python_function(CREATE, self.create),
            RETIRE: python_function(RETIRE, self.retire),
        }


@dataclass
class Plane:
    """The whole plane: `run` works off what is queued until nothing moves."""

    db: Database
    clock: ManualClock
    desk: Desk
    models: dict[str, ModelFunction]
    catalog: ModelCatalog | None = None
    secrets: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        resource = ModelResource(name="default", external=False, accepts=frozenset({"pii"}))
        self.live = LiveProject({"default": resource})
        self.services = Services(road=self._road(), catalog=self.catalog or self._functions())
        self.engine = MemoryEngine(
            self.db,
            lambda durable: run_segment(self.services, durable),
            clock=self.clock,
            on_end=close_trace,
            on_stop=self.services.catalog.aclose,
        )
        self.intake = Intake(
            db=self.db,
            dispatch=self.engine.dispatch,
            live=self.live,
            resolve=self.secrets.__getitem__,
            accepted=lambda reference: (self.secrets[reference],),
        )

    def apply(self, project: Release) -> Release:
        """Make a release live."""
        return self.db.run("apply", lambda tx: registry.put_release(tx, project, by="ann"))

    def start(self, value: Json = None, *, key: str | None = None) -> RunId:
        """Start a run by hand for `ann`, and run until nothing moves."""
        run_id = self.queue(value, key=key)
        self.engine.run_until_idle()
        return run_id

    def queue(self, value: Json = None, *, key: str | None = None) -> RunId:
        """Start a run by hand for `ann`; nothing runs yet."""
        accepted = start_manual(
            self.intake,
            WORKFLOW,
            environment="dev",
            value={"title": "vpn"} if value is None else value,
            by="ann",
            tenant=DEFAULT_TENANT,
            key=key,
        )
        assert accepted.run_id is not None
        return accepted.run_id

    def signal(self, run_id: RunId, topic: str, value: Json) -> None:
        """Send a signal to a run, and run until nothing moves."""
        send = self.engine.dispatch.signal
        self.db.run("signal", lambda tx: send(tx, run_id, topic, value, dedupe_key=topic))
        self.engine.run_until_idle()

    def get(self, run_id: RunId) -> Run:
        """Return a run."""
        return self.read(lambda tx: runs.get(tx, run_id))

    def spans(self, run_id: RunId) -> dict[str, Span]:
        """Return the spans of a run by key."""
        return {span.key: span for span in self.read(lambda tx: spans.list_for_run(tx, run_id))}

    def effects(self, run_id: RunId) -> list[Effect]:
        """Return the effects of a run."""
        return self.read(lambda tx: effects.list_for_run(tx, run_id))

    def children(self, run_id: RunId) -> list[Run]:
        """Return the child runs of a run, oldest first."""
        return self.read(lambda tx: runs.children(tx, run_id))

    def child(self, run_id: RunId) -> Run:
        """Return the only child run of a run."""
        (child,) = self.children(run_id)
        return child

    def read(self, fn: Callable[[Tx], T]) -> T:
        """Return what `fn` reads."""
        with self.db.reading() as tx:
            return fn(tx)

    def _road(self) -> Road:
        pool = ConnectorPool(self.desk.functions())
        return Road(
            db=self.db,
            live=self.live,
            sender=ConnectorSender(
                connect=pool.get,
                resolve=self.secrets.__getitem__,
                points=self.db.points,
                may_send=lambda: True,
                is_stopped=lambda _target: False,
            ),
            price=lambda _model, _input, _output: Price(micro_usd=1, version="test"),
            key_secret=b"k" * 32,
            approval_ttl_us=3_600_000_000,
        )

    def _functions(self) -> ModelCatalog:
        model = FunctionModel(self._model, model_name="function")
        return ModelCatalog({}, built={"default": model}, retry=Retry(initial_s=0.0))

    def _model(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        """Let the function of the agent answer that the instructions name."""
        instructions = info.instructions or ""
        name = instructions.removeprefix("You are ").partition(".")[0]
        return self.models[name](messages, info)


@contextmanager
def open_plane(
    tmp_path: Path,
    *,
    url: str | None = None,
    catalog: ModelCatalog | None = None,
    ticking: ManualClock | None = None,
    desk: type[Desk] = Desk,
    points: CrashPoints | None = None,
    **models: ModelFunction,
) -> Iterator[Plane]:
    """Open a plane on a new SQLite file or `url`, with a model function per agent or a catalog.

    `ticking` is another clock than one that stands still.
    """
    clock = ticking or ManualClock()
    db = Database(url or f"sqlite:///{tmp_path / 'interlock.db'}", clock=clock, points=points)
    migrate.upgrade(db)
    plane = Plane(db=db, clock=clock, desk=desk(clock), models=models, catalog=catalog)
    plane.engine.start()
    try:
        yield plane
    finally:
        plane.engine.stop()
        db.close()


def value_of(value: Json) -> JsonObject:
    """Return a JSON value that is known to be an object."""
    assert isinstance(value, dict)
    return value


def list_of(value: Json) -> list[Json]:
    """Return a JSON value that is known to be a list."""
    assert isinstance(value, list)
    return value
