"""The key of this machine's own user: who can read the data folder may operate the installation."""

from __future__ import annotations

import getpass
import os
from pathlib import Path

from interlock.app import Interlock
from interlock.domain.principal import PrincipalKind, Role
from interlock.serve.auth import hash_secret, mint_key
from interlock.store import keys

KEY_FILE = "local.key"
_ROLES = frozenset({Role.VIEWER, Role.OPERATOR, Role.OWNER, Role.ADMIN, Role.AUDITOR})


def local_token(interlock: Interlock) -> str:
    """Return the token of the local user, minted at first use and kept in a 0600 file.

    It has every role but approver: approvals are answered by named people with keys of their own.
    """
    file = interlock.config.data_dir / KEY_FILE
    token = _read(file)
    if token is not None:
        with interlock.db.reading() as tx:
            if keys.find_key(tx, hash_secret(token)) is not None:
                return token
    _, token = interlock.db.run(
        "key.create",
        lambda tx: mint_key(
            tx, name=_user(), kind=PrincipalKind.USER, roles=_ROLES, by="this installation"
        ),
    )
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(token)
    return token


def _read(file: Path) -> str | None:
    try:
        return file.read_text().strip() or None
    except FileNotFoundError:
        return None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "local"
