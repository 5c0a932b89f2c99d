"""Servers of others work behind Interlock as they come, and one that is lost doubles nothing.

The reference MCP servers (git, time, filesystem, memory and everything) are installed as locked and
started over stdio; their tools are imported, reviewed and called, in both eras of the protocol.
Tryton is a CRM and accounting over HTTP; its answers are lost on their way.
"""

from __future__ import annotations

import json

from interlock.domain.canonical import Json, JsonObject
from proofs import tested
from proofs.verdict import Verdict, say
from scripts import peers

TESTS = (
    "tests/acceptance/test_mcp_servers.py",
    "tests/test_git_howto.py",
    "tests/test_back_office_howto.py",
)
PYTHON = {
    "servers": ("mcp-server-git", "mcp-server-time"),
    "tryton": ("trytond", "trytond-account-invoice", "trytond-sale-opportunity"),
}
"""Packages of Python by the environment that holds them."""
NPM = tuple(
    f"@modelcontextprotocol/server-{name}" for name in ("filesystem", "memory", "everything")
)


def main() -> Verdict:
    """Install the servers, run their tests, and tell the versions."""
    for name in (*PYTHON, peers.NODE):
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
    locked = {
        name: peers.versions(environment)[name]
        for environment, names in PYTHON.items()
        for name in names
    }
    wanted = json.loads((peers.LOCKS / "package.json").read_text())["dependencies"]
    return locked | {name: wanted[name] for name in NPM}
