"""What a proof says: progress while it works, and its verdict as one line of JSON at the end."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass, field

from interlock.domain.canonical import Json, JsonObject
from scripts import postgres

LONG = "LONG"
_STARTED = time.monotonic()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a claim holds: what was measured, what it had to be, and further figures."""

    value: Json
    goal: Json
    holds: bool
    figures: JsonObject = field(default_factory=dict)

    def to_json(self, claim: str) -> JsonObject:
        """Return the line that ends a proof, with the machine and the seconds it took."""
        head: JsonObject = {
            "claim": claim,
            "value": self.value,
            "goal": self.goal,
            "holds": self.holds,
        }
        tail: JsonObject = {"machine": machine(), "seconds": round(time.monotonic() - _STARTED, 1)}
        return head | self.figures | tail


def say(text: str) -> None:
    """Tell on standard error how the work goes on, with the seconds since its start."""
    print(f"{time.monotonic() - _STARTED:7.1f} s  {text}", file=sys.stderr, flush=True)


def sized(usual: int, *, long: int) -> int:
    """Return the size of a proof: the usual one, or with `LONG=1` the long one."""
    return long if os.environ.get(LONG) == "1" else usual


def machine() -> JsonObject:
    """Return what figures depend on: processors that may be used, and versions."""
    server = [str(postgres.find_binaries() / "postgres"), "--version"]
    told = subprocess.run(server, capture_output=True, text=True, check=True).stdout
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "postgres": told.split()[2],
    }
