"""No order of crashes, expiries, losses and stops breaks the effect protocol; broken rules do.

For each class every state is visited that two crashes, two lease expiries, one lost or refused
request and one stop can lead to, in `protocol_world`, and for `probed` also those of a worker that
sends past every deadline, whose doubled effect a second look has to find; then each mutant of the
rules has to be refused. Budgets and kill switches are not part of it.
"""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor

from interlock.domain.canonical import JsonObject
from interlock.domain.tool import EffectClass
from proofs.protocol_mutants import MUTANTS
from proofs.protocol_world import LATE, Found, Rules, first, search
from proofs.verdict import Verdict, say

CRASHES, EXPIRIES, LOSSES = 2, 2, 1
LIMIT_S = 30.0
_PROCESSES = 2
# The largest first, so that both processes end at about the same time.
_CLASSES = sorted(EffectClass, key=lambda c: c not in {EffectClass.KEYED, EffectClass.CONDITIONAL})
_KEPT: dict[str, tuple[EffectClass, Rules]] = {
    **{effect_class.value: (effect_class, Rules()) for effect_class in _CLASSES},
    "probed, paused for too long": (EffectClass.PROBED, LATE),
}


def main() -> Verdict:
    """Search every class and every mutant, in two processes."""
    began_s = time.monotonic()
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(_PROCESSES, mp_context=context) as pool:
        kept = dict(zip(_KEPT, pool.map(explore, _KEPT), strict=True))
        refused = dict(zip(MUTANTS, pool.map(explore_mutant, MUTANTS), strict=True))
    seconds = time.monotonic() - began_s
    return judge(kept, refused, seconds=seconds)


def explore(name: str) -> Found:
    """Search the protocol as it is."""
    effect_class, rules = _KEPT[name]
    start = first(effect_class, crashes=CRASHES, expiries=EXPIRIES, faults=LOSSES)
    found = search(start, rules)
    say(f"{name}: {found.states} states, {_told(found)}")
    return found


def explore_mutant(name: str) -> Found:
    """Search a mutant up to the first promise that it breaks."""
    effect_class, rules = MUTANTS[name]
    start = first(
        effect_class, crashes=CRASHES, expiries=EXPIRIES, faults=LOSSES, is_key_probed=True
    )
    found = search(start, rules)
    say(f"mutant `{name}`: {_told(found)}")
    return found


def judge(kept: dict[str, Found], refused: dict[str, Found], *, seconds: float) -> Verdict:
    """Say whether no promise was broken, every mutant was refused, and all in time."""
    broken: JsonObject = {
        name: list(found.trace) for name, found in kept.items() if found.trace is not None
    }
    missed = [name for name, found in refused.items() if found.trace is None]
    caught = len(refused) - len(missed)
    return Verdict(
        value={"broken": len(broken), "mutants_caught": caught, "search_s": round(seconds, 1)},
        goal={"broken": 0, "mutants_caught": len(MUTANTS), "search_s": LIMIT_S},
        holds=not broken and not missed and len(refused) == len(MUTANTS) and seconds <= LIMIT_S,
        figures={
            "states": {name: found.states for name, found in kept.items()},
            "counterexamples": broken,
            "mutants_missed": list(missed),
            "crashes": CRASHES,
            "expiries": EXPIRIES,
            "losses": LOSSES,
        },
    )


def _told(found: Found) -> str:
    return "no promise broken" if found.trace is None else f"broken by: {', '.join(found.trace)}"
