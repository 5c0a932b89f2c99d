from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from interlock.domain.ids import (
    EffectId,
    RunId,
    StepName,
    effect_id_of,
    idempotency_key_of,
    trace_id_of,
)

RUN = RunId("0192f0c1-0000-7000-8000-000000000001")


def test_ids_of_an_effect_never_change() -> None:
    """The values are fixed: another formula would resend under another key after an upgrade."""
    effect_id = effect_id_of(RUN, StepName("resolve/1/0/desk.issue.create"))

    assert "acab67995231ddcd4901ee14b784e4fe" == effect_id
    assert "cf23b2d96b20b06054880da45dced950" == idempotency_key_of(effect_id)


@given(st.text(max_size=9), st.text(max_size=9))
def test_each_step_has_an_effect_of_its_own(one: str, other: str) -> None:
    """Two step names of a run share an effect only if they are the same name."""
    safe = [text.encode(errors="ignore").decode() for text in (one, other)]
    left, right = (effect_id_of(RUN, StepName(text)) for text in safe)

    assert (safe[0] == safe[1]) == (left == right)


def test_run_and_step_are_not_joined_ambiguously() -> None:
    """Text that moves from the run's id to the step's name makes another effect."""
    assert effect_id_of(RunId("ab"), StepName("c")) != effect_id_of(RunId("a"), StepName("bc"))


def test_key_and_id_of_an_effect_differ() -> None:
    """What is sent upstream does not disclose the id under which we look things up."""
    effect_id = EffectId("0" * 32)

    assert effect_id != idempotency_key_of(effect_id)


def test_trace_id_is_the_run_id_without_dashes() -> None:
    """A run is one W3C trace: 32 hex digits."""
    assert "0192f0c1000070008000000000000001" == trace_id_of(RUN)
