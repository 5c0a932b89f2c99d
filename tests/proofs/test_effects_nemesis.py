"""The verdict on random harm holds only if harm was done, and nothing else came of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from interlock.domain.canonical import JsonObject
from interlock.testing.recorder import Recorder
from interlock.testing.recorder_project import files
from interlock.testing.recording import Record
from proofs.effects_nemesis import judge
from proofs.invariants import CALLS_FILE, Ledger, export
from proofs.undo_project import UNDO_FAILED, with_undo
from proofs.verdict import Verdict
from tests.road_bench import RoadBench

KEY = "once"
HARM: JsonObject = {
    "worker killed": 1,
    "worker stopped": 1,
    "postgres crashed": 1,
    "answers lost": 1,
}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ledger, Record]:
    """A failed run that undid its four writes, as ledger and tool server have it."""
    folder: Path = tmp_path_factory.mktemp("recorder")
    url = f"sqlite:///{folder / 'interlock.db'}"
    with Recorder(folder) as recorder:
        texts = with_undo(files(recorder.url)) | {"budgets/calls.yaml": CALLS_FILE}
        with RoadBench(url, texts) as bench:
            bench.run(UNDO_FAILED, {"text": KEY}, key=KEY)
            with bench.db.reading() as tx:
                ledger = export(tx)
        zero = {name: (0,) * len(times) for name, times in ledger.intents_us.items()}
        return replace(ledger, intents_us=zero), recorder.log()


def test_claim_holds_after_all_harms_if_all_agree(seen: tuple[Ledger, Record]) -> None:
    """Enough effects, undos among them, every kind of harm, and no breach."""
    verdict = _judged(*seen)

    assert (True, []) == (verdict.holds, verdict.figures["breaches_found"])


@pytest.mark.parametrize("harm", list(HARM))
def test_claim_fails_if_a_harm_was_not_done(seen: tuple[Ledger, Record], harm: str) -> None:
    """What survived nothing shows nothing."""
    assert not _judged(*seen, harm=HARM | {harm: 0}).holds


def test_claim_fails_if_nothing_was_undone_or_too_little_called(
    seen: tuple[Ledger, Record],
) -> None:
    """Undos and a number of effects belong to the claim."""
    ledger, record = seen
    without = replace(ledger, effects=tuple(e for e in ledger.effects if e.compensates is None))

    assert not _judged(without, record).holds
    assert not _judged(ledger, record, wanted=1000).holds


def test_claim_fails_for_a_doubled_effect_and_a_lost_trigger(seen: tuple[Ledger, Record]) -> None:
    """One of either is enough."""
    ledger, record = seen
    doubled = replace(record, effects=(*record.effects, record.effects[0]))

    assert not _judged(ledger, doubled).holds
    assert not _judged(ledger, record, triggers=[KEY, "lost"]).holds


def _judged(
    ledger: Ledger,
    record: Record,
    *,
    harm: JsonObject = HARM,
    triggers: list[str] | None = None,
    wanted: int = 8,
) -> Verdict:
    return judge(ledger, record, triggers=triggers or [KEY], wanted=wanted, harm=harm)
