"""References to secrets, `secret://<system>/<environment>/<name>`, and what can be a secret."""

from __future__ import annotations

import re
from dataclasses import dataclass

from interlock.domain.errors import InputError

MAX_BYTES = 64 * 1024
_PART = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
_REFERENCE = re.compile(rf"secret://(?P<system>{_PART})/(?P<environment>{_PART})/(?P<name>{_PART})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Where a secret belongs: to a system, in one environment, under a name."""

    system: str
    environment: str
    name: str


def parse(text: str) -> Reference:
    """Read a reference; raises `InputError` without repeating the text."""
    match = _REFERENCE.fullmatch(text)
    if match is None:
        # The text is not repeated: it may be a secret that was put where a reference belongs.
        msg = "a credential must be a reference like `secret://<system>/<environment>/<name>`"
        raise InputError(msg)
    return Reference(**match.groupdict())


def checked(value: str, reference: str) -> str:
    """Return a secret without its final line break; raises `InputError` for what cannot be one."""
    text = value.removesuffix("\n").removesuffix("\r")
    if not text or len(value.encode()) > MAX_BYTES or not text.isprintable():
        msg = f"the secret at `{reference}` must be one line of text of at most {MAX_BYTES} bytes"
        raise InputError(msg)
    return text
