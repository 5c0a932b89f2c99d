"""The comparison of ledger and record refuses a log that shows a doubled or unmeant effect."""

from __future__ import annotations

from dataclasses import replace

import pytest

from interlock.domain.effect import Effect, EffectState
from interlock.domain.ids import EffectId
from interlock.domain.tool import EffectClass
from interlock.testing.clock import START_US, ManualClock
from interlock.testing.recorder import Recorder
from interlock.testing.recorder_project import WORKFLOW_OF, files
from interlock.testing.recording import Record
from proofs.invariants import CALLS_FILE, Ledger, compare, export
from proofs.undo_project import UNDO_FAILED, with_undo
from tests.road_bench import RoadBench

KEY = "once"
_LATER = START_US + 60_000_000


class _Ticking(ManualClock):
    """A clock that goes on by a moment at each look, so that what is later has a later time."""

    def now_us(self) -> int:
        """Move on and return the reading."""
        return self.advance(0.000_1)


def with_budget(texts: dict[str, str]) -> dict[str, str]:
    """Return a project whose calls are counted."""
    return texts | {"budgets/calls.yaml": CALLS_FILE}


@pytest.fixture(scope="module", params=["keyed", "blind"])
def seen(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Ledger, Record]:
    """One call as the ledger has it, and as the tool server has it."""
    folder = tmp_path_factory.mktemp("recorder")
    url = f"sqlite:///{folder / 'interlock.db'}"
    with Recorder(folder) as recorder, RoadBench(url, with_budget(files(recorder.url))) as bench:
        bench.run(WORKFLOW_OF[request.param], {"text": KEY}, key=KEY)
        with bench.db.reading() as tx:
            ledger = export(tx)
        # The bench's clock stands still, far from the tool server's.
        return _at_zero(ledger), recorder.log()


def test_what_happened_as_recorded_breaks_nothing(seen: tuple[Ledger, Record]) -> None:
    """A call that was sent and applied once, and says so, is in order."""
    ledger, record = seen

    assert [] == compare(ledger, record, triggers=[KEY])


def test_effect_that_was_applied_twice_is_refused(seen: tuple[Ledger, Record]) -> None:
    """A second effect of the same call is found, whichever its class."""
    ledger, record = seen
    doubled = replace(record, effects=record.effects * 2)

    found = compare(ledger, doubled, triggers=[KEY])

    assert any(text.startswith(("I3", "I4")) for text in found)


def test_request_that_nobody_meant_is_refused(seen: tuple[Ledger, Record]) -> None:
    """A second request of one attempt is found, although it may have done nothing."""
    ledger, record = seen
    again = replace(record, requests=record.requests * 2)

    found = compare(ledger, again, triggers=[KEY])

    assert any(text.startswith("I1") for text in found)


def test_effect_that_is_recorded_as_failed_is_refused(seen: tuple[Ledger, Record]) -> None:
    """What was applied may not stand in the ledger as a failure."""
    ledger, record = seen
    failed = tuple(_failed(effect) for effect in ledger.effects)

    found = compare(replace(ledger, effects=failed), record, triggers=[KEY])

    assert any(text.startswith("I4") for text in found)


@pytest.mark.parametrize("counted", [(0, 0), (2, 0), (0, 1), (1, 1)])
def test_call_that_a_budget_counts_wrongly_is_refused(
    seen: tuple[Ledger, Record], counted: tuple[int, int]
) -> None:
    """Not at all, twice, or as one that is still open."""
    ledger, record = seen

    found = compare(replace(ledger, counted=counted), record, triggers=[KEY])

    assert {"I7"} == {text.partition(":")[0] for text in found}


def test_other_body_and_lost_trigger_are_refused(seen: tuple[Ledger, Record]) -> None:
    """A request must be the one that was decided, and an accepted trigger has a run."""
    ledger, record = seen
    other = tuple(replace(request, body_hash="sha256:0") for request in record.requests)

    found = compare(ledger, replace(record, requests=other), triggers=[KEY, "lost"])

    assert {"I2", "I5"} == {text.partition(":")[0] for text in found}


@pytest.fixture(scope="module")
def undone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ledger, Record]:
    """A failed run that undid its four writes, as ledger and tool server have it."""
    folder = tmp_path_factory.mktemp("undone")
    url = f"sqlite:///{folder / 'interlock.db'}"
    with (
        Recorder(folder) as recorder,
        RoadBench(url, with_budget(with_undo(files(recorder.url))), clock=_Ticking()) as bench,
    ):
        bench.run(UNDO_FAILED, {"text": KEY}, key=KEY)
        with bench.db.reading() as tx:
            ledger = export(tx)
        return _at_zero(ledger), recorder.log()


def test_undo_of_all_latest_first_breaks_nothing(undone: tuple[Ledger, Record]) -> None:
    """Four writes undone in reverse order, one after the other, are in order."""
    ledger, record = undone

    assert 4 == sum(effect.compensates is not None for effect in ledger.effects)
    assert [] == compare(ledger, record, triggers=[KEY])


def test_undo_that_was_applied_twice_is_refused(undone: tuple[Ledger, Record]) -> None:
    """The tool server saw an undo twice, although the ledger knows of one."""
    ledger, record = undone
    last = record.effects[-1]
    doubled = (*record.effects, replace(last, id=last.id + 1))

    assert "I9" in broken(ledger, replace(record, effects=doubled))


def test_second_undo_of_one_effect_is_refused(undone: tuple[Ledger, Record]) -> None:
    """Two undos of one effect may not both be open or done, whatever the tool server saw."""
    ledger, record = undone
    undo = _undos(ledger)[-1]
    second = replace(undo, effect_id=EffectId("second"), attempt=0, state=EffectState.PROPOSED)

    assert "I9" in broken(_with(ledger, second), record)


def test_undo_in_the_order_of_the_writes_is_refused(undone: tuple[Ledger, Record]) -> None:
    """What was done last has to be undone first, on record and at the tool server."""
    ledger, record = undone
    last, first = record.effects[-1], record.effects[-2]
    swapped = (*record.effects[:-2], replace(last, id=first.id), replace(first, id=last.id))
    second, third = _undos(ledger)[1:3]
    on_record = _with(
        ledger,
        replace(second, intent_us=third.intent_us, outcome_us=third.outcome_us),
        replace(third, intent_us=second.intent_us, outcome_us=second.outcome_us),
    )

    assert {"I9"} == broken(ledger, replace(record, effects=swapped))
    assert "I9" in broken(on_record, record)


def test_undo_before_the_one_before_it_was_over_is_refused(undone: tuple[Ledger, Record]) -> None:
    """While nobody knows how an undo ended, what was done earlier stays."""
    ledger, record = undone
    first = _undos(ledger)[0]

    assert "I9" in broken(_with(ledger, replace(first, outcome_us=_LATER)), record)
    assert "I9" in broken(_with(ledger, replace(first, state=EffectState.PARKED)), record)


def test_undo_past_an_unknown_outcome_is_refused(undone: tuple[Ledger, Record]) -> None:
    """Nothing is undone that was done before a write which may have been done."""
    ledger, record = undone
    failed = next(e for e in ledger.effects if e.state is EffectState.FAILED_DEFINITE)
    unknown = replace(failed, state=EffectState.PARKED)

    assert "I9" in broken(_with(ledger, unknown), record)


def test_undo_of_what_was_not_done_is_refused(undone: tuple[Ledger, Record]) -> None:
    """Neither the ledger nor the tool server may know of an undo without what it undoes."""
    ledger, record = undone
    original = next(e for e in ledger.effects if e.state is EffectState.COMPENSATED)
    unwritten = tuple(e for e in ledger.effects if e is not original)
    unapplied = tuple(e for e in record.effects if e.reference != original.effect_id)
    denied = replace(original, state=EffectState.DENIED, compensated_by=None)

    assert "I9" in broken(replace(ledger, effects=unwritten), record)
    assert "I9" in broken(_with(ledger, denied), record)
    assert "I9" in broken(ledger, replace(record, effects=unapplied))


def test_undo_that_the_original_does_not_name_is_refused(undone: tuple[Ledger, Record]) -> None:
    """What was undone says so, and by what."""
    ledger, record = undone
    original = next(e for e in ledger.effects if e.state is EffectState.COMPENSATED)
    stands = replace(original, state=EffectState.SUCCEEDED, compensated_by=None)

    assert {"I9"} == broken(_with(ledger, stands), record)


def broken(ledger: Ledger, record: Record) -> set[str]:
    """Return the invariants that a comparison finds broken."""
    return {text.partition(":")[0] for text in compare(ledger, record, triggers=[KEY])}


def _undos(ledger: Ledger) -> list[Effect]:
    undos = [effect for effect in ledger.effects if effect.compensates is not None]
    return sorted(undos, key=lambda effect: effect.intent_us or 0)


def _with(ledger: Ledger, *changed: Effect) -> Ledger:
    """Return a ledger with these rows instead of those of the same name, or besides them."""
    rows = {effect.effect_id: effect for effect in (*ledger.effects, *changed)}
    nothing: dict[EffectId, tuple[()]] = dict.fromkeys(rows, ())
    return replace(
        ledger,
        effects=tuple(rows.values()),
        decisions={**nothing, **ledger.decisions},
        evidence={**nothing, **ledger.evidence},
        approvals={**nothing, **ledger.approvals},
    )


def _failed(effect: Effect) -> Effect:
    is_call = effect.effect_class is not EffectClass.READ
    return replace(effect, state=EffectState.FAILED_DEFINITE) if is_call else effect


def _at_zero(ledger: Ledger) -> Ledger:
    return replace(
        ledger, intents_us={name: (0,) * len(times) for name, times in ledger.intents_us.items()}
    )
