from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts import bootstrap


def test_run_that_finds_everything_in_place_does_nothing() -> None:
    """After `make` has set up the checkout, a further set-up is silent and needs no network."""
    if not bootstrap._is_complete():
        pytest.skip("`make` has not set up this checkout since its settings changed")
    unreachable = {"PIP_INDEX_URL": "http://127.0.0.1:9", "UV_DEFAULT_INDEX": "http://127.0.0.1:9"}

    done = subprocess.run(
        [sys.executable, bootstrap.__file__], env=unreachable, capture_output=True, check=False
    )

    assert (0, b"", b"") == (done.returncode, done.stdout, done.stderr)


def test_cache_is_in_the_checkout_where_home_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set-up works for accounts without a home folder."""
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setenv("HOME", str(blocked))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("UV_CACHE_DIR", raising=False)

    env = bootstrap._environment()

    assert str(bootstrap.ROOT / ".cache" / "uv") == env["UV_CACHE_DIR"]


def test_settings_that_send_packages_elsewhere_are_not_passed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A PIP_TARGET or an active environment of the caller's shell does not redirect set-up."""
    for name in bootstrap.MISLEADING:
        monkeypatch.setenv(name, "elsewhere")

    env = bootstrap._environment()

    assert set() == set(bootstrap.MISLEADING) & set(env)
