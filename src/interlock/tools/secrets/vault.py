"""Secrets in a KV engine, version 2, of HashiCorp Vault or OpenBao.

A secret is the field `value` at `<prefix>/<system>/<environment>/<name>`. Whoever keeps the token
fresh, an agent of Vault as a rule, writes it to a file, which is read anew with every request.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import cast
from urllib.parse import quote

import httpx2

from interlock.domain.canonical import JsonObject, parse
from interlock.domain.errors import InputError, JsonError, UnavailableError
from interlock.tools.addresses import target_of
from interlock.tools.secrets import reference as references
from interlock.tools.secrets.reference import MAX_BYTES, checked

FIELD = "value"
KEPT_S = 15
"""For how long a secret that was read is used without asking again."""
MISSED_S = 1
"""For how long that one could not be read is told without asking again."""
_TIMEOUT_S = 5.0
_MOST_KEPT = 10_000
_LARGEST = MAX_BYTES + 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultPlace:
    """Where a Vault is, and in which engine, under which path, the secrets are.

    `overlap_s`: for how long a version that was replaced counts where others sign.
    """

    address: str
    token_file: Path
    mount: str = "secret"
    prefix: str = "interlock"
    namespace: str | None = None
    overlap_s: int = 3_600


@dataclass(frozen=True, slots=True, kw_only=True)
class _Version:
    """A version as it was read at `read_s`; it had been there for `age_s`, by Vault's own clock."""

    value: str
    number: int
    read_s: float
    age_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """What was found when Vault was asked: a version, none, or why it could not be read."""

    found: _Version | UnavailableError | None
    until_s: float


class VaultSecrets:
    """Reads secrets from Vault, each at most every 15 seconds; fails closed when it is away."""

    def __init__(
        self,
        place: VaultPlace,
        *,
        now_s: Callable[[], float] = time.monotonic,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        target_of(place.address, "dev")  # https, or a loopback address
        self._vault = place
        self._now_s = now_s
        self._kept: dict[tuple[str, int | None], _Kept] = {}
        self._lock = threading.Lock()
        self._http = httpx2.Client(
            transport=transport, timeout=_TIMEOUT_S, follow_redirects=False, trust_env=False
        )

    @property
    def place(self) -> str:
        """Say where they are kept."""
        return f"Vault at {self._vault.address}"

    def resolve(self, reference: str) -> str:
        """Return a secret as it was at most 15 seconds ago; see `SecretSource`."""
        return self._newest(reference).value

    def accepted(self, reference: str) -> tuple[str, ...]:
        """Return a secret, and the version before for the overlap after it was replaced."""
        newest = self._newest(reference)
        age_s = newest.age_s + self._now_s() - newest.read_s
        if newest.number == 1 or age_s >= self._vault.overlap_s:
            return (newest.value,)
        before = self._version(reference, newest.number - 1)
        return (newest.value,) if before is None else (newest.value, before.value)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _newest(self, reference: str) -> _Version:
        found = self._version(reference, None)
        if found is None:
            where = f"`{self._path(reference)}` of the engine `{self._vault.mount}`"
            msg = f"no secret is stored at `{reference}`; write the field `{FIELD}` of {where}"
            raise UnavailableError(f"{msg} in Vault")
        return found

    def _version(self, reference: str, number: int | None) -> _Version | None:
        """Return a version, the newest if none is named, as it was found not long ago."""
        key, now_s = (reference, number), self._now_s()
        with self._lock:
            known = self._kept.get(key)
        if known is None or now_s >= known.until_s:
            try:
                found: _Version | UnavailableError | None = self._read(reference, version=number)
            except UnavailableError as error:
                found = error
            # Who forges signatures is not to make a request of us each time.
            is_there = isinstance(found, _Version)
            known = _Kept(found=found, until_s=now_s + (KEPT_S if is_there else MISSED_S))
            with self._lock:
                self._kept.pop(key, None)
                while len(self._kept) >= _MOST_KEPT:
                    self._kept.pop(next(iter(self._kept)))
                self._kept[key] = known
        if isinstance(known.found, UnavailableError):
            raise UnavailableError(known.found.message)
        return known.found

    def _read(self, reference: str, *, version: int | None = None) -> _Version | None:
        """Ask Vault for a version, the newest if none is named; None if there is none."""
        path = f"{quote(self._vault.mount)}/data/{quote(self._path(reference))}"
        read_s = self._now_s()
        status, now, body = self._ask(f"{self._vault.address.rstrip('/')}/v1/{path}", version)
        if status == HTTPStatus.NOT_FOUND:
            return None
        if status == HTTPStatus.FORBIDDEN:
            raise UnavailableError(f"Vault does not let our token read `{reference}`")
        if status != HTTPStatus.OK:
            raise UnavailableError(f"Vault answered {status} for `{reference}`")
        try:
            read = cast("JsonObject", parse(body, max_bytes=_LARGEST))
            data = cast("JsonObject", read["data"])
            told = cast("JsonObject", data["metadata"])
            value = cast("JsonObject", data["data"])[FIELD]
            number, created = int(str(told["version"])), str(told["created_time"])
            age_s = (parsedate_to_datetime(now) - _moment(created)).total_seconds()
        except (JsonError, LookupError, TypeError, ValueError):
            raise _none_at(reference) from None
        if not isinstance(value, str):
            raise _none_at(reference)
        try:
            text = checked(value, reference)
        except InputError as error:
            raise UnavailableError(error.message) from None
        return _Version(value=text, number=number, read_s=read_s, age_s=age_s)

    def _ask(self, url: str, version: int | None) -> tuple[int, str, bytes]:
        """Return status, Vault's time and body."""
        headers = {"X-Vault-Token": self._token(), "X-Vault-Request": "true"}
        if self._vault.namespace is not None:
            headers["X-Vault-Namespace"] = self._vault.namespace
        params = {} if version is None else {"version": str(version)}
        try:
            with self._http.stream("GET", url, headers=headers, params=params) as answer:
                body = b""
                for part in answer.iter_bytes():
                    body += part
                    if len(body) > _LARGEST:
                        raise UnavailableError(f"{self.place} answered with too much")
                return answer.status_code, answer.headers.get("date", ""), body
        except httpx2.HTTPError as error:
            msg = f"{self.place} does not answer: {type(error).__name__}"
            raise UnavailableError(msg) from None

    def _token(self) -> str:
        file = self._vault.token_file
        try:
            return checked(file.read_text(encoding="ascii"), str(file))
        except (OSError, ValueError, InputError):
            raise UnavailableError(f"the token of Vault cannot be read from `{file}`") from None

    def _path(self, reference: str) -> str:
        read = references.parse(reference)
        own = f"{read.system}/{read.environment}/{read.name}"
        return f"{self._vault.prefix}/{own}" if self._vault.prefix else own


def _none_at(reference: str) -> UnavailableError:
    return UnavailableError(f"what Vault has at `{reference}` has no field `{FIELD}` with a text")


def _moment(text: str) -> datetime:
    """Read a moment as Vault writes it, with up to nine digits of a second, to the second.

    >>> _moment("1970-01-01T00:00:01.500000000Z").timestamp()
    1.0
    """
    return datetime.fromisoformat(f"{text.removesuffix('Z').partition('.')[0]}+00:00")
