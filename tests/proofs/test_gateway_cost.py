"""The arithmetic of `gateway-cost`: what is subtracted, what is compared, and what holds."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from interlock.domain.canonical import JsonObject
from interlock.manifest.load import load
from proofs.gateway_cost import Measured, judged
from proofs.gateway_project import project
from proofs.processes import cpu_s

_SECONDS = 10.0
_BURN = "import time\nwhile time.process_time() < 0.3: pass"


def _used(*cpu_ms: float) -> list[Measured]:
    """Return rounds of 100 calls that used so much a call."""
    return [
        Measured(cpu_s=ms / 10, elapsed_s=_SECONDS, calls_ms=[ms, ms, 1000.0] * 33 + [ms])
        for ms in cpu_ms
    ]


def test_what_is_used_at_rest_is_no_cost_of_calls() -> None:
    """Two percent of a core over ten seconds are taken off what 100 calls used."""
    one = Measured(cpu_s=1.2, elapsed_s=_SECONDS, calls_ms=[1.0] * 100)

    assert pytest.approx(10.0) == one.cpu_ms(0.02)


def test_ratios_are_taken_within_a_round() -> None:
    """A machine that is slow in one round makes both slow there, and changes no ratio."""
    rounds = {
        "direct": _used(0, 0, 0),
        "ungoverned": _used(2, 20, 4),
        "interlock_x": _used(3, 30, 6),
        "contextforge": _used(30, 300, 60),
    }

    verdict = judged(rounds, dict.fromkeys(rounds, 0.0))

    assert verdict.holds
    assert {"of_ungoverned": 1.5, "contextforge_of_ours": 10.0} == verdict.value


@pytest.mark.parametrize(
    ("ours", "rival"), [((3.1, 2.0), 40.0), ((2.0, 3.1), 40.0), ((2.0, 2.0), 19.0)]
)
def test_the_worst_of_our_rows_decides(ours: tuple[float, float], rival: float) -> None:
    """One row above the goal is enough not to hold, be it against the proxy or the rival."""
    rounds = {
        "direct": _used(0),
        "ungoverned": _used(2),
        "interlock_a": _used(ours[0]),
        "interlock_b": _used(ours[1]),
        "contextforge": _used(rival),
    }

    assert not judged(rounds, dict.fromkeys(rounds, 0.0)).holds


def test_no_processor_time_is_told_of_calls_without_a_gateway() -> None:
    """Neither client nor upstream is counted, so only the time of half the calls is there."""
    rounds = {
        "direct": _used(1),
        "ungoverned": _used(2),
        "interlock_x": _used(2),
        "contextforge": _used(40),
    }

    table = judged(rounds, dict.fromkeys(rounds, 0.0)).figures["rows"]

    assert isinstance(table, dict)
    told: JsonObject = {"p50_ms": 1.0}
    assert told == table["direct"]


def test_children_that_have_ended_count() -> None:
    """What a child burned is its parent's cost once that has waited for it."""
    parent = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {_BURN!r}])\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", f"{parent}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        root = psutil.Process(process.pid)
        while root.cpu_times().children_user + root.cpu_times().children_system == 0:
            assert process.poll() is None

        used_s = cpu_s([root])

        process.kill()

    assert 0.3 <= used_s


def test_the_project_that_is_called_is_right() -> None:
    """It is applied as it is by the proof, which takes minutes."""
    loaded = load(project("http://127.0.0.1:1/mcp"))

    assert {"upstream.word.find", "upstream.word.add"} == {str(name) for name in loaded.tools}
