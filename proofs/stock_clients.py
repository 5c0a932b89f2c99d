"""Stock clients of agents work at the gateway as the how-to connects them.

Each is installed in an environment of its own, as locked, and driven through one story: its tools,
a read, a write, what it reads of refusals, a call that a person approves, and its result.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree as ET

from interlock.domain.canonical import Json, JsonObject
from proofs.verdict import Verdict, say
from scripts import peers

TESTS = "tests/acceptance/test_stock_clients.py"
INSTALLED = {
    "fastmcp": ("fastmcp", "mcp"),
    "langgraph": ("langgraph", "langchain-mcp-adapters", "mcp"),
    "openai": ("openai-agents", "mcp"),
    "adk": ("google-adk", "mcp"),
}
_ROOT = Path(__file__).parent.parent
_STORY = re.compile(r"test_a_stock_client_works_as_the_page_says\[(.+)\]")


def main() -> Verdict:
    """Install the clients, run their tests, and tell which work and in which version."""
    for name in (*INSTALLED, peers.NODE):
        say(f"installed in {peers.install(name).relative_to(_ROOT)}")
    with TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "", TESTS, f"--junit-xml={report}"]
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
        if not report.exists():
            raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
        # Written by the process that was started above.
        cases = list(ET.parse(report).iter("testcase"))  # noqa: S314
    rows: JsonObject = {}
    for case in cases:
        found = _STORY.fullmatch(case.get("name", ""))
        if found:
            rows[found[1]] = {"works": len(case) == 0, "versions": _versions(found[1])}
        say(f"{'works' if len(case) == 0 else 'FAILS'}  {case.get('name')}")
    failed: list[Json] = [case.get("name", "") for case in cases if len(case) > 0]
    return Verdict(
        value={"failed": failed},
        goal={"failed": []},
        holds=not failed and len(rows) > 0,
        figures={"clients": rows},
    )


def _versions(name: str) -> JsonObject:
    """Return the versions of a client's packages that matter."""
    if name.startswith("inspector"):
        wanted = json.loads((peers.LOCKS / "package.json").read_text())
        return {"inspector": wanted["dependencies"]["@modelcontextprotocol/inspector"]}
    if name not in INSTALLED:
        return {"mcp": version("mcp")}
    locked = peers.versions(name)
    return {package: locked[package] for package in INSTALLED[name]}
