"""What speaks against a server, and what does not."""

from __future__ import annotations

import pytest

from interlock.domain.breaker import Tally, is_failure, why
from interlock.domain.effect import Reply, Transport


def answered(status: int, *, is_error: bool = False) -> Reply:
    """Return an answer with a status."""
    return Reply(transport=Transport.REPLY, status=status, is_error=is_error)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (answered(200), False),
        (answered(200, is_error=True), False),
        (answered(404), False),
        (answered(409), False),
        (answered(-32602), False),
        (answered(429), True),
        (answered(500), True),
        (answered(503), True),
        (Reply(transport=Transport.UNKNOWN), True),
        (Reply(transport=Transport.NOT_SENT), None),
        (Reply(transport=Transport.NOT_SENT, is_unreachable=True), True),
    ],
)
def test_only_what_the_server_is_to_blame_for_is_its_failure(
    reply: Reply,
    expected: bool | None,  # noqa: FBT001  # a parametrized value
) -> None:
    """A refusal shows that it works; what never left for a reason of ours shows nothing."""
    assert expected is is_failure(reply)


def test_a_success_begins_the_row_anew() -> None:
    """Five failures count only without a success between them, or as half of the last twenty."""
    tally = Tally()
    for is_bad in (True, True, True, True, False, True, True, True, True):
        tally = tally.add(is_failure=is_bad)

    assert not tally.is_bad
    assert tally.add(is_failure=True).is_bad


def test_only_the_last_twenty_calls_count() -> None:
    """What was long ago is forgotten."""
    tally = Tally(last=(True,) * 4)
    for _ in range(30):
        tally = tally.add(is_failure=False)

    assert Tally(last=(False,) * 20) == tally


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(transport=Transport.REPLY, status=503, problem="secret words"), "it answered 503"),
        (Reply(transport=Transport.UNKNOWN, problem="no answer"), "it did not answer"),
        (Reply(transport=Transport.NOT_SENT, is_unreachable=True), "it could not be reached"),
    ],
)
def test_reason_holds_no_words_of_the_outside(reply: Reply, expected: str) -> None:
    """It is shown to operators of every tenant that uses the server."""
    assert expected == why(reply)
