"""The comparison of ledger and record refuses a log that shows a doubled or unmeant effect."""

from __future__ import annotations

from dataclasses import replace

import pytest

from interlock.domain.effect import Effect, EffectState
from interlock.domain.tool import EffectClass
from interlock.testing.recorder import Recorder
from interlock.testing.recorder_project import WORKFLOW_OF, files
from interlock.testing.recording import Record
from proofs.invariants import Ledger, compare, export
from tests.road_bench import RoadBench

KEY = "once"


@pytest.fixture(scope="module", params=["keyed", "blind"])
def seen(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Ledger, Record]:
    """One call as the ledger has it, and as the tool server has it."""
    folder = tmp_path_factory.mktemp("recorder")
    url = f"sqlite:///{folder / 'interlock.db'}"
    with Recorder(folder) as recorder, RoadBench(url, files(recorder.url)) as bench:
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


def test_other_body_and_lost_trigger_are_refused(seen: tuple[Ledger, Record]) -> None:
    """A request must be the one that was decided, and an accepted trigger has a run."""
    ledger, record = seen
    other = tuple(replace(request, body_hash="sha256:0") for request in record.requests)

    found = compare(ledger, replace(record, requests=other), triggers=[KEY, "lost"])

    assert {"I2", "I5"} == {text.partition(":")[0] for text in found}


def _failed(effect: Effect) -> Effect:
    is_call = effect.effect_class is not EffectClass.READ
    return replace(effect, state=EffectState.FAILED_DEFINITE) if is_call else effect


def _at_zero(ledger: Ledger) -> Ledger:
    return replace(
        ledger, intents_us={name: (0,) * len(times) for name, times in ledger.intents_us.items()}
    )
