"""Secrets in variables of the environment, as containers and service managers set them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from interlock.domain.errors import InputError, UnavailableError
from interlock.tools.secrets.reference import checked, parse

PREFIX = "INTERLOCK_SECRET_"
_BEFORE = "__BEFORE"
_PART = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


class VariableSecrets:
    """Reads secrets from a mapping, which is that of the process as it was started."""

    place = f"variables `{PREFIX}...` of the server's environment"

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._values = {name: environ[name] for name in environ if name.startswith(PREFIX)}

    def resolve(self, reference: str) -> str:
        """Return the value of a reference's variable; see `SecretSource`."""
        name = variable_of(reference)
        value = self._values.get(name)
        if not value:
            raise UnavailableError(f"no secret is stored at `{reference}`; set `{name}`")
        return checked(value, reference)

    def accepted(self, reference: str) -> tuple[str, ...]:
        """Return the value, and that of `..._BEFORE` as long as it is set."""
        before = self._values.get(variable_of(reference) + _BEFORE)
        values = (self.resolve(reference), *((before,) if before else ()))
        return tuple(checked(value, reference) for value in values)


def variable_of(reference: str) -> str:
    """Return the variable of a reference: no two references have the same.

    Raises `InputError` for one with other characters than lower-case letters, digits and `-`.

    >>> variable_of("secret://servicedesk/dev/triage-bot")
    'INTERLOCK_SECRET_SERVICEDESK__DEV__TRIAGE_BOT'
    """
    read = parse(reference)
    parts = (read.system, read.environment, read.name)
    if not all(map(_PART.fullmatch, parts)):
        msg = f"`{reference}` makes no variable: use lower-case letters, digits and single `-`"
        raise InputError(msg)
    return PREFIX + "__".join(part.upper().replace("-", "_") for part in parts)
