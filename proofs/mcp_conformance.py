"""Through the gateway the official MCP conformance suite finds what it finds without it.

The server is the one that the authors of the MCP SDK hold against the suite. Its tools are
imported, reviewed and called at the gateway; the suite runs at both revisions against the server
and against the gateway, each behind `renaming`, since the suite knows its tools by name. Its
scenarios for clients run against the client of the same authors and against our connector. What
differs is listed with its reason in `mcp_conformance.yaml`; a line that is none any more fails.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from ruamel.yaml import YAML

from interlock.domain.canonical import Json, JsonObject
from interlock.testing.process import free_port
from interlock.tools.upstream import KINDS
from proofs import renaming
from proofs.gateway_project import AGENT, SERVER, frame
from proofs.installation import command, installed
from proofs.processes import listening
from proofs.verdict import Verdict, say
from scripts import peers

REVISIONS = ("2025-11-25", "2026-07-28")
EXPECTED = Path(__file__).with_suffix(".yaml")
_SUITE = "@modelcontextprotocol/conformance"
_CLIENT = Path(__file__).parent / "conformance_client.py"
_RUN = re.compile(r"(?P<scenario>.+)-\d{4}-\d\d-\d\dT[0-9-]+Z")
_REVIEWED = """
source: {labels: [], trusted: true}
sink: {accepts: [], external: false}
"""
_RUN_S = 600

Role = Literal["server", "client"]
Results = Mapping[str, frozenset[str]]
"""What was found in each scenario: how its checks ended, as `check: STATUS`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A scenario that ends otherwise through Interlock: checks that only one of the two has."""

    scenario: str
    direct: frozenset[str]
    through: frozenset[str]

    def to_json(self) -> JsonObject:
        """Render for the verdict."""
        return {"direct": [*sorted(self.direct)], "through": [*sorted(self.through)]}


def main() -> Verdict:
    """Run the suite over both ways, compare, and hold it against what was expected to differ."""
    expected = YAML(typ="safe").load(EXPECTED.read_text(encoding="utf-8"))
    suite = _Suite()
    figures: JsonObject = {}
    problems: list[Json] = []
    with TemporaryDirectory(prefix="interlock-proof-") as place:
        folder = Path(place)
        found = _servers(suite, folder) | _clients(suite, folder)
    for (role, revision), (direct, through) in found.items():
        name = f"{role} {revision}"
        different = differences(direct, through)
        listed: Mapping[str, str] = expected[role][revision] or {}
        problems += judged(name, different, listed, known=direct.keys() | through.keys())
        equal = len(direct.keys() | through.keys()) - len(different)
        figures[name] = {
            "scenarios": len(direct),
            "equal": equal,
            "differ": {one.scenario: one.to_json() for one in different},
        }
        say(f"{name}: {equal} of {len(direct)} scenarios end alike")
    for problem in problems:
        say(f"NOT AS EXPECTED  {problem}")
    return Verdict(
        value={"unexpected": problems},
        goal={"unexpected": []},
        holds=not problems,
        figures={"suite": suite.version, **figures},
    )


def differences(direct: Results, through: Results) -> list[Difference]:
    """Return the scenarios that do not have the same checks with the same ends, by name."""
    names = sorted(direct.keys() | through.keys())
    none = frozenset[str]()
    pairs = ((name, direct.get(name, none), through.get(name, none)) for name in names)
    return [
        Difference(scenario=name, direct=one - other, through=other - one)
        for name, one, other in pairs
        if one != other
    ]


def judged(
    where: str,
    different: Sequence[Difference],
    listed: Mapping[str, str],
    *,
    known: Collection[str],
) -> list[str]:
    """Return what is not as expected; `listed` are patterns of scenarios that are to differ."""
    names = {one.scenario for one in different}
    new = [
        f"{where}: {name} differs, and no line says so"
        for name in sorted(names)
        if not any(fnmatchcase(name, pattern) for pattern in listed)
    ]
    stale = []
    for pattern in listed:
        meant = {name for name in known if fnmatchcase(name, pattern)}
        alike = ", ".join(sorted(meant - names))
        if alike or not meant:
            stale.append(f"{where}: the line `{pattern}` is stale: {alike or 'nothing'} ends alike")
    return new + stale


class _Suite:
    """The conformance suite, and what comes with the SDK for it: a server and a client."""

    def __init__(self) -> None:
        place = peers.install(peers.NODE)
        package = peers.package(place, _SUITE)
        self._program = (peers.node(place), package / "dist" / "index.js")
        self.version: str = json.loads((package / "package.json").read_text())["version"]
        sdk = peers.source("mcp")
        self.server_folder = sdk / "examples" / "servers" / "everything-server"
        self.client = sdk / ".github" / "actions" / "conformance" / "client.py"
        say(f"the suite {self.version}; server and client of {sdk.name}")

    def run(self, role: Role, revision: str, target: str, output: Path) -> Results:
        """Run all scenarios of a revision against a server's address or a client's command."""
        option = "--url" if role == "server" else "--command"
        words = [*self._program, role, option, target, "--requirements", revision, "-o", output]
        done = subprocess.run(
            list(map(str, words)),
            cwd=output.parent,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
            capture_output=True,
            text=True,
            check=False,
            timeout=_RUN_S,
        )
        results = {}
        for checks in sorted(output.glob("**/checks.json")):
            run = _RUN.fullmatch(str(checks.parent.relative_to(output)))
            assert run is not None, checks  # INVARIANT: the suite names its folders like this
            told = (one for one in json.loads(checks.read_text()) if one["status"] != "INFO")
            ends = (f"{one['id']}: {one['status']}" for one in told)
            results[run["scenario"].removeprefix(f"{role}-")] = frozenset(ends)
        if not results:
            raise RuntimeError(f"the suite ran nothing: {done.stdout[-1000:]}{done.stderr[-1000:]}")
        say(f"{output.parent.name}/{output.name}: {len(results)} scenarios run")
        return results


def _servers(suite: _Suite, folder: Path) -> dict[tuple[Role, str], tuple[Results, Results]]:
    """Run the scenarios for servers, against the server and through the gateway."""
    port = free_port()
    program = [sys.executable, "-m", "mcp_everything_server", "--port", str(port)]
    path = {"PYTHONPATH": str(suite.server_folder)}
    url = f"http://127.0.0.1:{port}/mcp"
    with listening(program, folder=folder / "server", port=port, environment=path):
        return {
            ("server", revision): (
                _direct(suite, revision, url, folder / f"direct-{revision}"),
                _through(suite, revision, url, folder / f"through-{revision}"),
            )
            for revision in REVISIONS
        }


def _direct(suite: _Suite, revision: str, url: str, folder: Path) -> Results:
    with _renamed(url, folder, {}, None) as before:
        return suite.run("server", revision, before, folder / "results")


def _through(suite: _Suite, revision: str, url: str, folder: Path) -> Results:
    names = _imported(folder / "plane", url)
    files = frame(url, list(names.values()))
    with installed(folder / "plane", files) as installation:
        gateway, token = f"{installation.url}/mcp", installation.token(AGENT)
        shown = {
            upstream: name.replace(".", "__")
            for upstream, name in names.items()
            if "://" not in upstream  # resources keep their URIs
        }
        with _renamed(gateway, folder, shown, token) as before:
            return suite.run("server", revision, before, folder / "results")


def _imported(folder: Path, url: str) -> dict[str, str]:
    """Import all that the server offers and review it; return the names by those upstream."""
    for path, text in frame(url, ()).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    importing = ["tool", "import", "mcp", "--server", SERVER, "--owner", "platform"]
    command(folder, [*importing, "--resources", "--prompts"], {})
    names = {}
    yaml = YAML(typ="safe")
    for file in sorted((folder / "tools").glob("*.yaml")):
        text = file.read_text(encoding="utf-8")
        manifest = yaml.load(text)
        upstream = manifest["upstream"]
        called = next(upstream[kind] for kind in KINDS if kind in upstream)
        assert called not in names, called  # else one of the two would not be compared
        names[called] = manifest["name"]
        text = text.replace("group: write", "group: read").replace("class: blind", "class: read")
        file.write_text(text + _REVIEWED, encoding="utf-8")
    return names


@contextmanager
def _renamed(url: str, folder: Path, names: Mapping[str, str], token: str | None) -> Iterator[str]:
    port = free_port()
    told = {renaming.VARIABLE: json.dumps({"names": names, "token": token})}
    program = [sys.executable, "-m", renaming.__name__, str(port), url]
    root = Path(__file__).parents[1]
    told["PYTHONPATH"] = str(root)
    with listening(program, folder=folder, port=port, environment=told):
        yield f"http://127.0.0.1:{port}/mcp"


def _clients(suite: _Suite, folder: Path) -> dict[tuple[Role, str], tuple[Results, Results]]:
    """Run the scenarios for clients, against the client of the SDK's authors and our connector."""
    found: dict[tuple[Role, str], tuple[Results, Results]] = {}
    for revision in REVISIONS:
        sides = [
            suite.run(
                "client",
                revision,
                shlex.join([sys.executable, str(program)]),
                folder / f"client-{program.stem}-{revision}",
            )
            for program in (suite.client, _CLIENT)
        ]
        found["client", revision] = (sides[0], sides[1])
    return found
