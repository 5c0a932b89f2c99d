"""Makes `.venv` in the checkout: uv, all locked dependencies, and the project itself, editable.

Needs nothing but the standard library (with venv and pip). A run that finds everything in place
returns at once and asks nobody; runs that start at the same time take turns.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
PIP = VENV / "bin" / "pip"
UV = VENV / "bin" / "uv"
STAMP = VENV / ".complete"
LOCK = ROOT / "requirements" / "dev.txt"
OFFLINE = "is this machine online? behind a mirror, set PIP_INDEX_URL"

# Settings of the caller's shell that would send an installation elsewhere.
MISLEADING = (
    "PIP_PREFIX",
    "PIP_REQUIRE_VIRTUALENV",
    "PIP_TARGET",
    "PIP_USER",
    "PYTHONHOME",
    "PYTHONPATH",
    "UV_PROJECT_ENVIRONMENT",
    "UV_PYTHON",
    "VIRTUAL_ENV",
)


def main() -> None:
    """Bring `.venv` to what `requirements/dev.txt` and `pyproject.toml` say."""
    if sys.version_info < (3, 11):  # noqa: UP036  # run by whatever Python the machine has
        _fail(f"Python 3.11 or newer is needed, this is `{sys.version.split()[0]}`")
    if _is_complete():
        return
    with _alone():
        if not _is_complete():  # another run may have finished it meanwhile
            _build()


def _build() -> None:
    started = time.monotonic()
    present = STAMP.read_text().splitlines() if STAMP.exists() else []
    STAMP.unlink(missing_ok=True)
    env = _environment()
    if not _works(PIP):
        _say(f"making {VENV.relative_to(ROOT)} with Python {sys.version.split()[0]}")
        shutil.rmtree(VENV, ignore_errors=True)
        hint = "this Python lacks venv; on Debian and Ubuntu: `apt-get install python3-venv`"
        _run([sys.executable, "-m", "venv", str(VENV)], env=env, hint=hint)
        present = []
    wanted = _fingerprints()
    if present[:1] != wanted[:1]:  # a change of settings alone needs no network
        _install_uv(env)
        _install_packages(env)
    install = [str(UV), "pip", "install", "--quiet", "--python", str(PYTHON)]
    _run([*install, "--no-deps", "--no-build-isolation", "--editable", str(ROOT)], env=env)
    STAMP.write_text("\n".join(wanted))
    _say(f"ready after {time.monotonic() - started:.0f} s")


def _install_packages(env: dict[str, str]) -> None:
    _pass_on_mirror(env)
    count = sum("==" in line for line in LOCK.read_text().splitlines())
    _say(f"installing {count} locked packages (a minute or two the first time)")
    sync = [str(UV), "pip", "sync", "--quiet", "--python", str(PYTHON), "--require-hashes"]
    # At once and in parallel, instead of in every process where Python may not write what it
    # compiles (PYTHONDONTWRITEBYTECODE).
    _run([*sync, "--compile-bytecode", str(LOCK)], env=env, hint=OFFLINE)


def _install_uv(env: dict[str, str]) -> None:
    """Install the locked uv with pip; pip checks its hash."""
    lines = LOCK.read_text().splitlines()
    first = next(at for at, line in enumerate(lines) if line.startswith("uv=="))
    last = next(at for at, line in enumerate(lines) if at >= first and not line.endswith("\\"))
    version = lines[first].split()[0].removeprefix("uv==")
    if _works(UV) and version in subprocess.check_output([UV, "--version"], text=True).split():
        return
    _say(f"installing uv {version}")
    with tempfile.TemporaryDirectory() as folder:
        requirement = Path(folder) / "uv.txt"
        requirement.write_text("\n".join(lines[first : last + 1]) + "\n")
        pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        options = ["--no-input", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
        _run([*pip, *options, "--requirement", str(requirement)], env=env, hint=OFFLINE)


def _environment() -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if name not in MISLEADING}
    env["UV_PYTHON_DOWNLOADS"] = "never"
    env.setdefault("UV_SYSTEM_CERTS", "true")  # as pip does
    env.setdefault("UV_CACHE_DIR", str(_cache()))
    if env["UV_CACHE_DIR"] == str(ROOT / ".cache" / "uv"):
        env["PIP_NO_CACHE_DIR"] = "1"
    return env


def _pass_on_mirror(env: dict[str, str]) -> None:
    """Tell uv the mirror that pip is set to use; uv does not read pip's settings."""
    command = [str(PYTHON), "-m", "pip", "config", "get", "global.index-url"]
    told = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    mirror = env.get("PIP_INDEX_URL") or told.stdout.strip()
    if mirror:
        env.setdefault("UV_DEFAULT_INDEX", mirror)


def _cache() -> Path:
    """Return uv's usual cache, or one in the checkout where that cannot be written."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    usual = Path(home) / "uv"
    try:
        usual.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=usual):
            return usual
    except OSError:
        return ROOT / ".cache" / "uv"


def _fingerprints() -> list[str]:
    """Return digests of what `.venv` is made from: place and lock file, then the project's own."""
    lock = hashlib.sha256(str(ROOT).encode() + LOCK.read_bytes())
    project = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + Path(__file__).read_bytes())
    return [lock.hexdigest(), project.hexdigest()]


def _is_complete() -> bool:
    return PYTHON.exists() and STAMP.exists() and STAMP.read_text().splitlines() == _fingerprints()


def _works(program: Path) -> bool:
    """Say whether a program of `.venv` starts, and `.venv` is neither moved nor copied."""
    # Programs of an environment name its Python in full, which may still be there after a copy.
    if not program.exists() or str(VENV) not in PIP.read_text(errors="replace"):
        return False
    return subprocess.run([program, "--version"], capture_output=True, check=False).returncode == 0


@contextmanager
def _alone() -> Iterator[None]:
    (ROOT / ".cache").mkdir(exist_ok=True)
    with (ROOT / ".cache" / "bootstrap.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another run is installing; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(command: list[str], *, env: dict[str, str], hint: str = "") -> None:
    done = subprocess.run(command, env=env, cwd=ROOT, check=False)
    if done.returncode != 0:
        _fail(f"`{' '.join(command)}` failed" + (f": {hint}" if hint else ""))


def _say(text: str) -> None:
    print(f"set-up: {text}", flush=True)


def _fail(text: str) -> NoReturn:
    sys.exit(f"set-up: {text}")


if __name__ == "__main__":
    main()
