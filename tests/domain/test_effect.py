from __future__ import annotations

from interlock.domain.effect import Effect, Evidence, Reply, Transport
from interlock.domain.ids import EffectId


def test_effect_knows_nothing_of_an_outcome_at_first() -> None:
    """A row that was never sent has no send time, outcome, external id or result."""
    fields = Effect.__dataclass_fields__
    names = ("first_sent_us", "intent_us", "outcome_us", "external_id", "result", "error_code")

    assert [None] * 6 == [fields[name].default for name in names]


def test_reply_of_unknown_fate_claims_nothing() -> None:
    """A connector that lost an answer reports neither a status nor a body."""
    reply = Reply(transport=Transport.UNKNOWN)

    assert (None, None, False) == (reply.status, reply.body, reply.is_error)


def test_evidence_is_the_control_plane_s_own_unless_a_person_gave_it() -> None:
    """Evidence names who saw it; without a name it was Interlock itself."""
    evidence = Evidence(effect_id=EffectId("e"), attempt=1, epoch=1, kind="owner.lost")

    assert ("interlock", {}) == (evidence.by, evidence.detail)
