"""The keys that secrets are sealed with: a file beside the database, never in it.

One line for each key, the newest last: its id and 256 random bits. It is for its owner alone.
"""

from __future__ import annotations

import fcntl
import os
import stat
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_bytes, token_hex

from interlock.domain.errors import InputError, UnavailableError

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_KEY_BYTES = 32
_MOST_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Key:
    """One key and its id, which is in every row that it seals."""

    key_id: str
    secret: bytes

    def __repr__(self) -> str:
        """Return its id alone."""
        return f"Key({self.key_id})"


class Keyring:
    """The key file of one installation; workers on other hosts have a copy, or the same file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def newest(self) -> Key:
        """Return the key that seals, made at first use; raises `InputError` for a bad file."""
        if not self.path.exists():
            with self._alone():
                if not self.path.exists():
                    self._write([_new_key()])
        return self._read()[-1]

    def find(self, key_id: str) -> Key:
        """Return a key; raises `UnavailableError` if the file does not hold it."""
        keys = self._read() if self.path.exists() else []
        for key in keys:
            if key.key_id == key_id:
                return key
        msg = f"the key `{key_id}`, which opens it, is not in `{self.path}`; restore that file"
        raise UnavailableError(msg)

    def add(self, *, keep: frozenset[str]) -> Key:
        """Add a key, from now on the newest; drop all but those to `keep` and the one before.

        The one before stays, since another process may be sealing with it at this moment.
        """
        self.newest()
        with self._alone():
            keys = self._read()
            kept = [key for key in keys[:-1] if key.key_id in keep]
            added = _new_key()
            self._write([*kept, keys[-1], added])
        return added

    def _read(self) -> list[Key]:
        try:
            # Opened first and judged by its descriptor, so that no other file can slip in between.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(self.path, flags), "rb") as file:
                status = os.fstat(file.fileno())
                data = file.read(_MOST_BYTES + 1)
        except OSError as error:
            msg = f"the key file `{self.path}` cannot be read: {error.strerror}"
            raise UnavailableError(msg) from None
        if status.st_mode & _OTHERS:
            msg = f"others may read the key file `{self.path}`; set its mode to 0600"
            raise InputError(msg)
        try:
            keys = [_key_of(line) for line in data.decode("ascii").splitlines()]
        except (ValueError, Base64Error):
            keys = []
        if not keys:
            raise InputError(f"`{self.path}` is no key file; restore it from a backup")
        return keys

    def _write(self, keys: list[Key]) -> None:
        """Replace the file, all or nothing."""
        lines = "".join(f"{key.key_id} {b64encode(key.secret).decode()}\n" for key in keys)
        fresh = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(lines.encode("ascii"))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes of this host from changing the file."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(
            self.path.with_name(f".{self.path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600
        )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _new_key() -> Key:
    return Key(token_hex(4), token_bytes(_KEY_BYTES))


def _key_of(line: str) -> Key:
    key_id, _, text = line.partition(" ")
    secret = b64decode(text, validate=True)
    if not key_id or len(secret) != _KEY_BYTES:
        raise ValueError
    return Key(key_id, secret)
