"""Secrets by reference: files that only the owner may read, opened just before a send."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from interlock.domain.errors import InputError, UnavailableError

MAX_BYTES = 64 * 1024

_PART = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
_REFERENCE = re.compile(rf"secret://({_PART})/({_PART})/({_PART})")
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class Credentials:
    """The secrets of one installation, `secret://<system>/<environment>/<name>` each in a file.

    `folder` holds `<system>/<environment>/<name>`; files have mode 0600, folders 0700.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def resolve(self, reference: str) -> str:
        """Return a secret's text without its final line break.

        Raises `InputError` for what is no reference or a file that others may read, and
        `UnavailableError` if no secret is stored there.
        """
        path = self._path(reference)
        try:
            # Opened first and judged by its descriptor, so that no other file can slip in between.
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
                status = os.fstat(file.fileno())
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            msg = f"no secret can be read at `{reference}` ({error.strerror}); store it first"
            raise UnavailableError(msg) from None
        if status.st_mode & _OTHERS:
            msg = f"others may read the file of `{reference}`; set its mode to 0600"
            raise InputError(msg)
        return _text(data, reference)

    def store(self, reference: str, value: str) -> None:
        """Store or replace a secret, all or nothing; raises `InputError` for what cannot be one."""
        path = self._path(reference)
        data = value.encode()
        _text(data, reference)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)

    def _path(self, reference: str) -> Path:
        match = _REFERENCE.fullmatch(reference)
        if match is None:
            # The text is not repeated: it may be a secret that was put where a reference belongs.
            msg = "a credential must be a reference like `secret://<system>/<environment>/<name>`"
            raise InputError(msg)
        return self._folder.joinpath(*match.groups())


def _text(data: bytes, reference: str) -> str:
    try:
        text = data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        text = ""
    if not text or len(data) > MAX_BYTES or not text.isprintable():
        msg = f"the secret at `{reference}` must be one line of text of at most {MAX_BYTES} bytes"
        raise InputError(msg)
    return text
