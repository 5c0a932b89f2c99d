"""Tokens of sessions: what they lead to, for how long, and what a new session remembers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from interlock.domain.errors import ForbiddenError, IntakeFullError, UnauthenticatedError
from interlock.domain.ids import AgentName
from interlock.domain.label import Labels
from interlock.domain.principal import Seat
from interlock.domain.run import RunState
from interlock.runtime.outside import exchange
from interlock.runtime.outside.exchange import ACCESS_S, TOLD_S, open_session, refresh_session
from interlock.store import keys, runs
from interlock.store.keys import AgentPlace
from interlock.testing.recorder_project import session_files
from tests.runtime.outside.session_bench import SEAT, SessionBench, session_row

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def bench(sqlite_url: str) -> Iterator[SessionBench]:
    """A road to a tool server that nobody asks."""
    with SessionBench(sqlite_url, session_files(NOWHERE)) as opened:
        yield opened


def test_a_session_is_a_run_of_its_seat(bench: SessionBench) -> None:
    """The client chooses nothing: workflow, agent, environment and tenant are the key's.

    Whose key it is stands where people look: in the run, and on the card of a call to approve.
    """
    key = bench.key()
    run = bench.get(bench.open(key).run_id)

    assert ("outside", "helper", "dev") == (
        run.request.workflow,
        run.request.agent,
        run.request.environment,
    )
    assert (SEAT,) == run.request.deciding
    assert ("session", RunState.QUEUED) == (run.request.trigger.kind, run.state)
    assert f"outside/gateway/{key.key_id}" == run.request.trigger.source
    assert run.request.trigger.key.startswith("helper-1/")


def test_a_token_works_for_a_quarter_of_an_hour(bench: SessionBench) -> None:
    """And a refreshed session has another one; the first is not brought back."""
    key = bench.key()
    first = bench.open(key)
    assert bench.works(first.access)

    bench.clock.advance(ACCESS_S - 1)
    assert bench.works(first.access)
    bench.clock.advance(2)
    second = refresh_session(bench.intake, key, str(first.refresh))

    assert not bench.works(first.access)
    assert bench.works(second.access)
    assert first.run_id == second.run_id


def test_clients_are_told_to_refresh_while_the_session_goes_on(bench: SessionBench) -> None:
    """They do so once the time that they were told is over; the session ends with the token."""
    assert TOLD_S == bench.open().expires_in_s < ACCESS_S


def test_a_token_ends_with_its_key_and_its_session(bench: SessionBench) -> None:
    """Asked at each call: revoked, expired, ended or to be cancelled, it leads nowhere."""
    revoked, brief, plain = bench.key(), bench.key(), bench.key()
    tokens = {name: bench.open(key) for name, key in {"r": revoked, "c": plain, "e": plain}.items()}
    with bench.db.reading() as tx:
        soon_us = tx.now_us + 60_000_000
    expiring = bench.open(bench.key(expires_us=soon_us))
    assert 40 == expiring.expires_in_s

    bench.db.run("revoke", lambda tx: keys.revoke_key(tx, revoked.key_id))
    bench.db.run("cancel", lambda tx: runs.request_cancel(tx, tokens["c"].run_id))
    bench.clock.advance(61)

    assert brief.key_id != revoked.key_id
    assert not bench.works(tokens["r"].access)
    assert not bench.works(tokens["c"].access)
    assert not bench.works(expiring.access)
    assert bench.works(tokens["e"].access)


def test_no_other_token_opens_the_door(bench: SessionBench) -> None:
    """A refresh token makes no calls, and what we did not make leads nowhere."""
    made = bench.open()

    assert not bench.works(str(made.refresh))
    assert not bench.works("ilt_" + "x" * 43)
    assert not bench.works("")


def test_only_its_own_key_refreshes_a_session(bench: SessionBench) -> None:
    """A refresh token that was stolen is of no use without the key."""
    made = bench.open()

    with pytest.raises(UnauthenticatedError, match="has ended"):
        refresh_session(bench.intake, bench.key(), str(made.refresh))


def test_a_new_session_remembers_what_the_key_has_read(bench: SessionBench) -> None:
    """Opening another session is no way to forget untrusted or labelled content."""
    key = bench.key()
    read = Labels(names=frozenset({"undeclared"}), is_untrusted=True)
    run_id = bench.open(key).run_id
    bench.db.run("labels", lambda tx: runs.raise_labels(tx, run_id, read))

    again, stranger = bench.get(bench.open(key).run_id), bench.get(bench.open().run_id)
    assert read == again.labels
    assert Labels() == stranger.labels


def test_an_open_session_hears_what_another_of_its_key_has_read(bench: SessionBench) -> None:
    """Two sessions side by side are no way to forget either: from the next request on both know."""
    key = bench.key()
    first, second, stranger = bench.open(key), bench.open(key), bench.open()
    assert all(bench.works(opened.access) for opened in (first, second, stranger))
    for name in ("undeclared", "secret"):
        read = Labels(names=frozenset({name}), is_untrusted=True)
        bench.db.run("labels", partial(runs.raise_labels, run_id=first.run_id, labels=read))
        assert all(bench.works(opened.access) for opened in (first, second, stranger))

        assert bench.get(first.run_id).labels == bench.get(second.run_id).labels
        assert Labels() == bench.get(stranger.run_id).labels
    assert {"undeclared", "secret"} == bench.get(second.run_id).labels.names


def test_who_is_told_already_is_not_told_again(bench: SessionBench) -> None:
    """A request of a session that knows all costs no write."""
    key = bench.key()
    opened = bench.open(key)
    for _ in range(2):
        assert bench.works(opened.access)

    with bench.db.reading() as tx:
        found = session_row(tx, opened.access)
    assert not found.is_behind


def test_a_session_whose_door_was_closed_gets_no_more_tokens(bench: SessionBench) -> None:
    """Who retires the workflow ends its sessions with their last token."""
    key = bench.key()
    opened = bench.open(key)
    project = session_files(NOWHERE)
    del project["workflows/outside.yaml"], project["agents/helper.yaml"]
    bench.apply(project)

    with pytest.raises(ForbiddenError, match="no live workflow lets"):
        refresh_session(bench.intake, key, str(opened.refresh))


def test_a_place_that_is_not_declared_has_no_door(bench: SessionBench) -> None:
    """Another environment, another agent, and a key of a person are refused in words."""
    nobody = Seat(workflow=SEAT.workflow, agent=AgentName("nobody"))
    for place in (
        AgentPlace(seat=SEAT, environment="prod"),
        AgentPlace(seat=nobody, environment="dev"),
    ):
        with pytest.raises(ForbiddenError, match="no live workflow lets"):
            bench.open(bench.key(place=place))


def test_sessions_of_a_key_are_bounded(
    bench: SessionBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that leaks sessions is told to end some."""
    monkeypatch.setattr(exchange, "MOST_SESSIONS", 2)
    key = bench.key()
    bench.open(key)
    bench.open(key)

    with pytest.raises(IntakeFullError, match="end one first"):
        open_session(bench.intake, key)
