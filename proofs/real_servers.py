"""The reference MCP servers work behind Interlock as they come, and a killed one doubles nothing.

Git, time, filesystem, memory and everything are installed as locked and started over stdio; their
tools are imported, reviewed and called, in both eras of the protocol.
"""

from __future__ import annotations

import json

from interlock.domain.canonical import Json, JsonObject
from proofs import tested
from proofs.verdict import Verdict, say
from scripts import peers

TESTS = ("tests/acceptance/test_mcp_servers.py", "tests/test_git_howto.py")
PYTHON = ("mcp-server-git", "mcp-server-time")
NPM = tuple(
    f"@modelcontextprotocol/server-{name}" for name in ("filesystem", "memory", "everything")
)
_ENVIRONMENT = "servers"


def main() -> Verdict:
    """Install the servers, run their tests, and tell the versions."""
    for name in (_ENVIRONMENT, peers.NODE):
        say(f"installed in {peers.install(name).relative_to(peers.ROOT)}")
    passed = tested.run(*TESTS)
    failed: list[Json] = [name for name, is_passed in passed.items() if not is_passed]
    return Verdict(
        value={"failed": failed},
        goal={"failed": []},
        holds=not failed,
        figures={"tests": len(passed), "servers": _versions()},
    )


def _versions() -> JsonObject:
    locked = peers.versions(_ENVIRONMENT)
    wanted = json.loads((peers.LOCKS / "package.json").read_text())["dependencies"]
    return {name: locked[name] for name in PYTHON} | {name: wanted[name] for name in NPM}
