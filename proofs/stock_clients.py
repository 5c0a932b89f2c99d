"""Stock clients of agents work at the gateway as the how-to connects them.

Each is installed in an environment of its own, as locked, and driven through one story: its tools,
a read, a write, what it reads of refusals, a call that a person approves, and its result.
"""

from __future__ import annotations

import json
import re
from importlib.metadata import version

from interlock.domain.canonical import Json, JsonObject
from proofs import tested
from proofs.verdict import Verdict, say
from scripts import peers

TESTS = "tests/acceptance/test_stock_clients.py"
INSTALLED = {
    "fastmcp": ("fastmcp", "mcp"),
    "langgraph": ("langgraph", "langchain-mcp-adapters", "mcp"),
    "openai": ("openai-agents", "mcp"),
    "adk": ("google-adk", "mcp"),
}
_STORY = re.compile(r"test_a_stock_client_works_as_the_page_says\[(.+)\]")


def main() -> Verdict:
    """Install the clients, run their tests, and tell which work and in which version."""
    for name in (*INSTALLED, peers.NODE):
        say(f"installed in {peers.install(name).relative_to(peers.ROOT)}")
    passed = tested.run(TESTS)
    rows: JsonObject = {}
    for name, is_passed in passed.items():
        found = _STORY.fullmatch(name)
        if found:
            rows[found[1]] = {"works": is_passed, "versions": _versions(found[1])}
    failed: list[Json] = [name for name, is_passed in passed.items() if not is_passed]
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
