from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scripts import lock

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def runtime_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the runtime lock that may be spoilt."""
    copy = tmp_path / "requirements" / "runtime.txt"
    copy.parent.mkdir()
    copy.write_text(lock.RUNTIME.read_text())
    (tmp_path / "pyproject.toml").write_text((lock.ROOT / "pyproject.toml").read_text())
    monkeypatch.setattr(lock, "ROOT", tmp_path)
    monkeypatch.setattr(lock, "RUNTIME", copy)
    dev = copy.with_name(lock.DEV.name)
    dev.write_text(lock.DEV.read_text())
    monkeypatch.setattr(lock, "DEV", dev)
    monkeypatch.setattr(lock, "APART", {})
    return copy


def test_lock_files_fit_the_project() -> None:
    """The checked-in lock files meet every requirement of pyproject.toml."""
    assert [] == lock.check()


def test_address_in_a_lock_file_is_found(runtime_lock: Path) -> None:
    """A lock file that says where to download from is refused."""
    text = runtime_lock.read_text()
    runtime_lock.write_text(f"--index-url mirror.example\n{text}")

    problems = lock.check()

    assert ["`requirements/runtime.txt` holds an address or an option; run `make lock`"] == problems


def test_unmet_requirement_is_named(runtime_lock: Path) -> None:
    """A requirement that the locked version does not meet is reported with both names."""
    lines = runtime_lock.read_text().splitlines()
    spoilt = ["dbos==3.3.0 \\" if line.startswith("dbos==") else line for line in lines]
    runtime_lock.write_text("\n".join(spoilt))

    problems = lock.check()

    assert [
        "`dbos<3.5,>=3.4` is not met by `requirements/runtime.txt`; run `make lock`",
        "`dbos` differs between the two files; run `make lock`",
    ] == problems
