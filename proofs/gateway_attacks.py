"""Twenty families of attacks of an outside agent on the gateway are stopped.

Each family is a test against a gateway that listens, with a tool's server that keeps what it hears;
most try several ways, some in both eras of MCP. This program runs them and counts the families of
which every way is stopped.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree as ET

from interlock.domain.canonical import Json
from proofs.verdict import Verdict, say

FAMILIES = 20
TESTS = "tests/security/test_gateway_attacks.py"
_NAME = re.compile(r"test_(\d\d)_(\w+)")
_ROOT = Path(__file__).parent.parent


def main() -> Verdict:
    """Run every attack and tell which families got through."""
    ways: dict[str, list[bool]] = {}
    with TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", TESTS, f"--junit-xml={report}"]
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
        if not report.exists():
            raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
        # Written by the process that was started above.
        cases = list(ET.parse(report).iter("testcase"))  # noqa: S314
    for case in cases:
        found = _NAME.match(case.get("name", ""))
        if found is None:
            continue
        is_stopped = len(case) == 0
        ways.setdefault(found[0].partition("[")[0], []).append(is_stopped)
        say(f"{'stopped' if is_stopped else 'GOT THROUGH'}  {case.get('name')}")
    stopped = sorted(name for name, tried in ways.items() if all(tried))
    through: list[Json] = [*sorted(set(ways) - set(stopped))]
    return Verdict(
        value={"families_stopped": len(stopped)},
        goal={"families_stopped": FAMILIES},
        holds=len(stopped) == len(ways) == FAMILIES,
        figures={"ways": sum(map(len, ways.values())), "got_through": through},
    )
