"""Writes the lock files in `requirements/`, or checks that they fit `pyproject.toml`.

A lock file names versions and hashes, never the address of a download: see
docs/decisions/0002-lock-without-addresses.md. `--check` asks no network.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
UV = Path(sys.executable).parent / "uv"
RUNTIME = ROOT / "requirements" / "runtime.txt"
DEV = ROOT / "requirements" / "dev.txt"
# What has an environment of its own: a group of dependencies each, by the path of its file.
APART = {
    ROOT / "requirements" / f"{group.replace('peer-', 'peers/')}.txt": group
    for group in (
        "rivals",
        "contextforge",
        "peer-adk",
        "peer-fastmcp",
        "peer-langgraph",
        "peer-node",
        "peer-openai",
        "peer-servers",
        "peer-tryton",
    )
}
NPM = ROOT / "requirements" / "peers" / "package-lock.json"
PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;]+)")
ADDRESS = re.compile(r"://|^\s*-(?!-hash=)|--(index|find-links|extra|trusted)", re.MULTILINE)


def main() -> None:
    """Run the command that was given: nothing to write anew, `--check` to compare."""
    if sys.argv[1:] == ["--check"]:
        problems = check()
        sys.exit("\n".join(f"lock: {problem}" for problem in problems) or 0)
    write(upgrade="--upgrade" in sys.argv[1:])


def write(*, upgrade: bool) -> None:
    """Resolve anew; versions in the present files stay unless `upgrade`."""
    command: list[str | Path] = [
        UV,
        "pip",
        "compile",
        "--quiet",
        "--universal",
        "--python-version",
        "3.11",
    ]
    command += ["--generate-hashes", "--no-annotate", "--no-header", "--no-emit-index-url"]
    command += ["--upgrade"] if upgrade else []
    project = "pyproject.toml"
    for path, *sources in (
        (RUNTIME, project),
        (DEV, project, "--group", "dev", "--constraints", RUNTIME),
        *((path, "--group", group) for path, group in APART.items()),
    ):
        resolve = [*command, *sources, "--output-file", path]
        subprocess.run(resolve, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def check() -> list[str]:
    """Return what is wrong with the lock files, one sentence each; empty if all is well."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    runtime, dev = _pins(RUNTIME), _pins(DEV)
    problems = []
    for path, pins, wanted in (
        (RUNTIME, runtime, project["project"]["dependencies"]),
        (DEV, dev, project["project"]["dependencies"] + project["dependency-groups"]["dev"]),
        *((path, _pins(path), project["dependency-groups"][name]) for path, name in APART.items()),
    ):
        name = path.relative_to(ROOT)
        if ADDRESS.search(path.read_text()):
            problems.append(f"`{name}` holds an address or an option; run `make lock`")
        problems += [
            f"`{requirement}` is not met by `{name}`; run `make lock`"
            for requirement in map(Requirement, wanted)
            if not _is_met(requirement, pins)
        ]
    problems += [
        f"`{name}` differs between the two files; run `make lock`"
        for name, version in runtime.items()
        if dev.get(name) != version
    ]
    if '"resolved"' in NPM.read_text():
        problems.append(f"`{NPM.relative_to(ROOT)}` holds addresses; make it anew in its folder")
    command = [str(UV), "pip", "check", "--python", sys.executable]
    installed = subprocess.run(command, capture_output=True, text=True, check=False)
    if installed.returncode != 0:
        problems.append(f"the packages do not fit together; run `make lock`: {installed.stderr}")
    return problems


def _pins(path: Path) -> dict[str, str]:
    found = (PIN.match(line) for line in path.read_text().splitlines())
    return {canonicalize_name(pin["name"]): pin["version"] for pin in found if pin}


def _is_met(requirement: Requirement, pins: dict[str, str]) -> bool:
    version = pins.get(canonicalize_name(requirement.name))
    return version is not None and requirement.specifier.contains(version, prereleases=True)


if __name__ == "__main__":
    main()
