"""Sessions of an outside agent on the real road, with a clock that stands still."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future

from interlock.calls.road import CallResult
from interlock.domain.canonical import Json
from interlock.domain.ids import AgentName, RunId, ToolName, WorkflowName
from interlock.domain.principal import Principal, PrincipalKind, Seat
from interlock.domain.run import Run, RunState
from interlock.runtime.outside.desk import Asked, ModelAsked, Pending
from interlock.runtime.outside.exchange import Tokens, hash_token, open_session, session_of
from interlock.store import keys, tokens
from interlock.store.keys import AgentPlace, ApiKey
from interlock.store.tokens import Session
from interlock.store.tx import Tx
from interlock.testing.recorder_project import OUTSIDE_AGENT, SESSIONS, TOOL_OF
from tests.road_bench import RoadBench

SEAT = Seat(workflow=WorkflowName(SESSIONS), agent=AgentName(OUTSIDE_AGENT))
PLACE = AgentPlace(seat=SEAT, environment="dev")
LIMIT_S = 30


class SessionBench(RoadBench):
    """A road with keys of an outside agent."""

    def key(self, *, place: AgentPlace = PLACE, expires_us: int | None = None) -> ApiKey:
        """Return a new key of the agent."""
        who = Principal(name="helper-1", kind=PrincipalKind.AGENT)
        number = len(self._all_keys())
        key_id = self.db.run(
            "key",
            lambda tx: keys.put_key(
                tx, who, secret_hash=f"h{number}", by="tests", expires_us=expires_us, place=place
            ),
        )
        return next(key for key in self._all_keys() if key.key_id == key_id)

    def _all_keys(self) -> list[ApiKey]:
        with self.db.reading() as tx:
            return keys.list_keys(tx)

    def open(self, key: ApiKey | None = None) -> Tokens:
        """Open a session."""
        return open_session(self.intake, key or self.key())

    def works(self, token: str) -> bool:
        """Return whether a token leads to a session now."""
        return session_of(self.db, token) is not None

    def call(
        self, run_id: RunId, effect_class: str = "keyed", *, key: str = "k1", text: str = "a"
    ) -> CallResult | Pending:
        """Make a call in a session."""
        return self.submit(run_id, effect_class, key=key, text=text).result(LIMIT_S)

    def submit(
        self, run_id: RunId, effect_class: str = "keyed", *, key: str = "k1", text: str = "a"
    ) -> Future[CallResult | Pending]:
        """Begin a call in a session."""
        given = {"reference": text} if effect_class == "read" else {"text": text}
        asked = Asked(key=key, tool=ToolName(TOOL_OF[effect_class]), arguments={**given})
        return self.engine.submit(self.sessions.call(run_id, asked))

    def moments(self, number: int) -> None:
        """Let this process go on for a while."""
        for _ in range(number):
            self.engine.submit(_a_moment()).result(LIMIT_S)

    def ask(self, run_id: RunId, asked: ModelAsked) -> Future[Json]:
        """Begin a model request in a session."""
        return self.engine.submit(self.sessions.ask(run_id, asked))

    def rest(self, run_id: RunId, *states: RunState) -> Run:
        """Return the run of a session once this process has let go of it."""
        for _ in range(LIMIT_S * 100):
            run = self.get(run_id)
            if run.state in (states or (RunState.WAITING,)):
                return run
            self.moments(1)
        raise AssertionError(f"the session is `{self.get(run_id).state}`")

    def end(self, run_id: RunId, topic: str) -> None:
        """Send a session a signal."""
        dispatch = self.engine.dispatch
        self.db.run("signal", lambda tx: dispatch.signal(tx, run_id, topic, {}, dedupe_key=topic))
        self.engine.run_until_idle()


async def _a_moment() -> None:
    await asyncio.sleep(0.01)


def session_row(tx: Tx, access: str) -> Session:
    """Return what is stored of the session of a token."""
    found = tokens.find(tx, hash_token(access), kind="access")
    assert found is not None
    return found
