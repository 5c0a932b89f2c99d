"""Takes back a call of a session that waits: nothing of it was sent, and nothing will be."""

from __future__ import annotations

from typing import Literal

from interlock.calls import approve
from interlock.calls.durable import Dispatch
from interlock.domain.ids import RunId, effect_id_of
from interlock.runtime.outside.session import WITHDRAWN_TOPIC, step_of, wait_of, withdrawal_of
from interlock.store import effects, runs, waits
from interlock.store.tx import Tx

Withdrawal = Literal["withdrawn", "in_hand", "begun"]
"""It will not be made; it is taken up just now, so ask again; it was made, or may have been."""


def withdraw(tx: Tx, dispatch: Dispatch, run_id: RunId, key: str) -> Withdrawal:
    """Let a call that waits for people, a rate or a server not be made any more.

    What people were asked for it becomes void. The run ends the call, as soon as it hears of this.
    """
    runs.lock_any(tx, run_id)
    effect = effects.find(tx, effect_id_of(run_id, step_of(key)))
    if effect is not None and effect.state not in approve.WAITING:
        return "begun"
    topics = [] if effect is None else approve.recall(tx, effect)
    # A wait has a row while nobody owns the run: whoever does next finds that it was taken back.
    wait = wait_of(tx, run_id, key)
    if not topics and wait is not None:
        topics = [wait.topic]
    if not topics:
        return "in_hand"
    name = withdrawal_of(key)
    waits.put_signal(tx, run_id, WITHDRAWN_TOPIC, None, name)
    for topic in topics:
        dispatch.signal(
            tx, run_id, topic, {"answer": "withdraw"}, dedupe_key=f"wake/{name}/{topic}"
        )
    return "withdrawn"
