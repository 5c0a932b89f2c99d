"""The secrets of one installation: in its database, sealed with keys that are not.

AES-256-GCM, bound to reference, version and key, so that no row can stand for another.
"""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from interlock.domain.errors import InputError, NotFoundError, UnavailableError
from interlock.store import secrets
from interlock.store.engine import Database
from interlock.store.secrets import SealedSecret
from interlock.store.tx import Tx
from interlock.tools.secrets.keyring import Key, Keyring
from interlock.tools.secrets.reference import checked, parse

T = TypeVar("T")
MOST_OVERLAP_S = 30 * 86_400
_NONCE_BYTES = 12
_TOGETHER = 50


class SealedSecrets:
    """Stores secrets, and opens them for whoever is about to use them."""

    place = "the database, sealed"

    def __init__(self, db: Database, keyring: Keyring) -> None:
        self._db = db
        self._keyring = keyring

    def resolve(self, reference: str) -> str:
        """Return a secret as it is now.

        Raises `InputError` for what is no reference, `UnavailableError` if it cannot be opened.
        """
        return self.accepted(reference)[0]

    def accepted(self, reference: str) -> tuple[str, ...]:
        """Return a secret, and the one before while that still counts: for what others signed.

        Raises as `resolve`.
        """
        parse(reference)
        found = self._stored(reference)
        while True:
            if not found or found[0].until_us is not None:
                hint = f"run `interlock secret set {reference}`"
                raise UnavailableError(f"no secret is stored at `{reference}`; {hint}")
            try:
                return tuple(self._opened(one) for one in found)
            except UnavailableError:
                # Sealed anew since it was read, perhaps, and the key of then dropped.
                before, found = found, self._stored(reference)
                if found == before:
                    raise

    def set(self, reference: str, value: str, *, by: str, overlap_s: int = 0) -> int:
        """Store a secret as the newest version and return its number.

        From the commit on it is the one that is sent; where signatures are checked, the version
        before counts for `overlap_s` more.
        """
        parse(reference)
        text, key = checked(value, reference), self._keyring.newest()
        if not 0 <= overlap_s <= MOST_OVERLAP_S:
            raise InputError(f"the overlap is at most {MOST_OVERLAP_S // 86_400} days")

        def store(tx: Tx) -> int:
            version = secrets.next_version(tx, reference)
            fresh = SealedSecret(
                reference=reference,
                version=version,
                key_id=key.key_id,
                sealed=_seal(key, reference, version, text),
                created_us=tx.now_us,
                created_by=by,
            )
            secrets.put(tx, fresh, until_us=tx.now_us + overlap_s * 1_000_000)
            return version

        return self._db.run("secret.set", store)

    def rotate(self, reference: str, value: str, *, by: str, overlap_s: int) -> int:
        """Replace a secret that is stored; raises `NotFoundError` if there is none."""
        parse(reference)
        if self._read(lambda tx: secrets.find(tx, reference)) is None:
            raise NotFoundError(f"no secret is stored at `{reference}`; set it first")
        return self.set(reference, value, by=by, overlap_s=overlap_s)

    def remove(self, reference: str) -> None:
        """Delete a secret with all its versions; raises `NotFoundError` if there is none."""
        parse(reference)
        if not self._db.run("secret.remove", lambda tx: secrets.remove(tx, reference)):
            raise NotFoundError(f"no secret is stored at `{reference}`")

    def rekey(self) -> int:
        """Seal everything with a new key while it is in use, and return how many versions."""
        used = self._read(secrets.list_key_ids)
        key, count = self._keyring.add(keep=used), 0
        while done := self._db.run("secret.rekey", lambda tx: self._reseal_some(tx, key)):
            count += done
        return count

    def _reseal_some(self, tx: Tx, key: Key) -> int:
        some = secrets.list_not_sealed_by(tx, key.key_id, limit=_TOGETHER)
        for one in some:
            sealed = _seal(key, one.reference, one.version, self._opened(one))
            secrets.reseal(tx, one, key_id=key.key_id, sealed=sealed)
        return len(some)

    def _opened(self, found: SealedSecret) -> str:
        key = self._keyring.find(found.key_id)
        data = b64decode(found.sealed)
        bound = _bound(found.reference, found.version, key)
        try:
            text = AESGCM(key.secret).decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], bound)
        except InvalidTag:
            msg = f"the secret at `{found.reference}` was changed in the database; set it again"
            raise UnavailableError(msg) from None
        return text.decode()

    def _stored(self, reference: str) -> list[SealedSecret]:
        return self._read(lambda tx: secrets.list_accepted(tx, reference))

    def _read(self, ask: Callable[[Tx], T]) -> T:
        with self._db.reading() as tx:
            return ask(tx)


def _seal(key: Key, reference: str, version: int, text: str) -> str:
    nonce = os.urandom(_NONCE_BYTES)
    sealed = AESGCM(key.secret).encrypt(nonce, text.encode(), _bound(reference, version, key))
    return b64encode(nonce + sealed).decode()


def _bound(reference: str, version: int, key: Key) -> bytes:
    return f"{reference}\n{version}\n{key.key_id}".encode()
