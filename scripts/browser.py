"""Finds a Chromium or Chrome that starts, or installs one; prints its path."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLE = "TEST_BROWSER"
NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
START_LIMIT_S = 30


def main() -> None:
    """Print the path of a browser; install one first if there is none."""
    found = find_browser()
    if found is None:
        _say("no Chromium or Chrome found; installing one")
        _install()
        found = find_browser()
    if found is None:
        sys.exit(f"set-up: install Chromium or Chrome, or name one in {VARIABLE}")
    print(found)


def find_browser() -> Path | None:
    """Return the first browser that starts: the one named in the environment, else a known one."""
    return next((path for path in _candidates() if _starts(path)), None)


def _candidates() -> Iterator[Path]:
    named = os.environ.get(VARIABLE)
    if named:
        yield Path(named)
        return
    for name in NAMES:
        path = shutil.which(name)
        if path:
            yield Path(path)
    folder = os.environ.get("PLAYWRIGHT_BROWSERS_PATH")
    caches = [Path(folder)] if folder else _playwright_caches()
    for cache in caches:
        yield from sorted(cache.glob("chromium-*/chrome-linux*/chrome"), reverse=True)
        yield from sorted(cache.glob("chromium-*/chrome-mac*/*.app/Contents/MacOS/*"), reverse=True)


def _playwright_caches() -> list[Path]:
    home = Path(os.path.expanduser("~"))  # noqa: PTH111  # works without HOME, unlike Path.home
    return [home / ".cache" / "ms-playwright", home / "Library" / "Caches" / "ms-playwright"]


def _starts(path: Path) -> bool:
    # Ubuntu's chromium-browser is a stand-in that only says how to install the real one.
    try:
        command = [str(path), "--version"]
        done = subprocess.run(command, capture_output=True, timeout=START_LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _install() -> None:
    if shutil.which("apt-get") and _install_with_apt():
        return
    _say("fetching Playwright's Chromium")
    _succeeds([sys.executable, "-m", "playwright", "install", "chromium"])


def _install_with_apt() -> bool:
    """Install Debian's package; only where that asks for no password and is no stand-in."""
    admin = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if admin and not (shutil.which("sudo") and _succeeds([*admin, "true"])):
        return False
    apt = [*admin, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-y"]
    return (
        _succeeds([*apt, "update"])
        and _succeeds([*apt, "install", "--no-install-recommends", "chromium"])
        and find_browser() is not None
    )


def _succeeds(command: list[str]) -> bool:
    return subprocess.run(command, stdout=sys.stderr, check=False).returncode == 0


def _say(text: str) -> None:
    print(f"set-up: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
