"""Tests that a proof runs: each by its name, and whether it passed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree as ET

from proofs.verdict import say

_ROOT = Path(__file__).parent.parent


def run(*tests: str) -> Mapping[str, bool]:
    """Run files of tests, those that need software of others too; return which passed.

    Raises `RuntimeError` with the end of what was printed if none was run.
    """
    with TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "", *tests, f"--junit-xml={report}"]
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
        # Written by the process that was started above.
        cases = list(ET.parse(report).iter("testcase")) if report.exists() else []  # noqa: S314
    if not cases:
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
    passed = {case.get("name", ""): len(case) == 0 for case in cases}
    for name, is_passed in passed.items():
        say(f"{'works' if is_passed else 'FAILS'}  {name}")
    return passed
