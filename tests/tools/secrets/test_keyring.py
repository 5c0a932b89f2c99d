"""The key file: made at first use, for its owner alone, never replaced by an empty one."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from interlock.domain.errors import InputError, UnavailableError
from interlock.tools.secrets.keyring import Keyring


def test_first_key_is_made_once(tmp_path: Path) -> None:
    """Also by several at once; the file is 0600 and a key shows its id alone."""
    path = tmp_path / "data" / "secrets.key"
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: Keyring(path).newest(), range(16)))

    assert 1 == len({key.secret for key in keys})
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert f"Key({keys[0].key_id})" == repr(keys[0])


def test_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    """A key that somebody else could have read is not used."""
    keyring = Keyring(tmp_path / "secrets.key")
    keyring.newest()
    keyring.path.chmod(0o640)

    with pytest.raises(InputError, match="set its mode to 0600"):
        keyring.newest()


def test_link_to_elsewhere_is_not_followed(tmp_path: Path) -> None:
    """The file is opened itself, or not at all."""
    Keyring(tmp_path / "elsewhere").newest()
    (tmp_path / "secrets.key").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(UnavailableError, match="cannot be read"):
        Keyring(tmp_path / "secrets.key").newest()


@pytest.mark.parametrize("text", ["", "abc", "abc def\n", "abc QUFB\n"])
def test_broken_file_is_not_replaced(tmp_path: Path, text: str) -> None:
    """A new key would open nothing that is stored."""
    path = tmp_path / "secrets.key"
    path.touch(mode=0o600)
    path.write_text(text)

    with pytest.raises(InputError, match="restore it from a backup"):
        Keyring(path).newest()
    assert text == path.read_text()
