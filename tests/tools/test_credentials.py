"""Secrets: only by reference, only from files that nobody else may read."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from interlock.domain.errors import InputError, UnavailableError
from interlock.tools.credentials import Credentials

REFERENCE = "secret://tracker/dev/agent"


@pytest.fixture
def credentials(tmp_path: Path) -> Credentials:
    """An empty folder of secrets."""
    return Credentials(tmp_path / "secrets")


def test_stored_secret_is_resolved(credentials: Credentials) -> None:
    """What was stored comes back, and a new value replaces it."""
    credentials.store(REFERENCE, "first")
    credentials.store(REFERENCE, "bot:pass word")

    assert credentials.resolve(REFERENCE) == "bot:pass word"


def test_secret_is_for_its_owner_only(credentials: Credentials, tmp_path: Path) -> None:
    """The file is 0600 and its folders are 0700."""
    credentials.store(REFERENCE, "s3cret")

    file = tmp_path / "secrets/tracker/dev/agent"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_file_that_others_may_read_is_refused(credentials: Credentials, tmp_path: Path) -> None:
    """A secret that somebody else could have read is not used."""
    credentials.store(REFERENCE, "s3cret")
    (tmp_path / "secrets/tracker/dev/agent").chmod(0o640)

    with pytest.raises(InputError, match="others may read"):
        credentials.resolve(REFERENCE)


def test_link_to_elsewhere_is_not_followed(credentials: Credentials, tmp_path: Path) -> None:
    """A symbolic link cannot make a secret of another file."""
    credentials.store("secret://tracker/dev/other", "s3cret")
    (tmp_path / "secrets/tracker/dev/agent").symlink_to(tmp_path / "secrets/tracker/dev/other")

    with pytest.raises(UnavailableError):
        credentials.resolve(REFERENCE)


def test_missing_secret_is_unavailable(credentials: Credentials) -> None:
    """Nothing stored is said with the reference, so that it can be stored."""
    with pytest.raises(UnavailableError, match="tracker/dev/agent"):
        credentials.resolve(REFERENCE)


@pytest.mark.parametrize(
    "text",
    [
        "hunter2",
        "secret://tracker/dev",
        "secret://tracker/dev/../agent",
        "secret://../dev/agent",
        "secret://tracker/dev/agent/more",
        "secret://tracker/dev/.hidden",
        "secret://tracker/dev/agent\n",
    ],
)
def test_what_is_no_reference_is_refused_unrepeated(credentials: Credentials, text: str) -> None:
    """A value where a reference belongs may be a secret, so the message does not repeat it."""
    with pytest.raises(InputError) as caught:
        credentials.resolve(text)

    assert text not in caught.value.message


@pytest.mark.parametrize("value", ["", "two\nlines", "nul\x00", "x" * 70_000])
def test_what_cannot_be_sent_is_not_stored(credentials: Credentials, value: str) -> None:
    """A secret is one line of text."""
    with pytest.raises(InputError):
        credentials.store(REFERENCE, value)


def test_final_line_break_is_not_part_of_it(credentials: Credentials, tmp_path: Path) -> None:
    """A file that was written by an editor works."""
    credentials.store(REFERENCE, "s3cret")
    (tmp_path / "secrets/tracker/dev/agent").write_text("s3cret\n")

    assert credentials.resolve(REFERENCE) == "s3cret"
