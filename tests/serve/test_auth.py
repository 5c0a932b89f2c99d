"""Keys: what lets a caller in, and from when on it no longer does."""

from __future__ import annotations

from interlock.domain.principal import Role
from interlock.serve.auth import hash_secret
from interlock.store.tables.keys import api_key
from interlock.testing.clock import ManualClock
from tests.serve.plane import API, Plane, error_of


async def test_a_key_lets_its_principal_in(plane: Plane) -> None:
    """The scheme is read without case, the token byte for byte."""
    token = plane.key(Role.VIEWER)

    for header in (f"Bearer {token}", f"bearer {token}"):
        answer = await plane.send("GET", f"{API}/runs", headers={"Authorization": header})
        assert 200 == answer.status_code


async def test_a_token_that_is_not_exact_is_unknown(plane: Plane) -> None:
    """No prefix, no other case, no part of a token is a key."""
    token = plane.key(Role.VIEWER)

    for other in (token.lower(), token[:-1], token.removeprefix("ilk_"), f"{token} x", ""):
        answer = await plane.send("GET", f"{API}/runs", token=other)
        assert (401, "unauthenticated") == error_of(answer)[:2]


async def test_an_expired_key_is_unknown(plane: Plane, clock: ManualClock) -> None:
    """It works until its moment and not from then on."""
    token = plane.key(Role.VIEWER, expires_us=clock.now_us() + 60_000_000)
    before = await plane.send("GET", f"{API}/runs", token=token)
    clock.advance(60)

    after = await plane.send("GET", f"{API}/runs", token=token)

    assert 200 == before.status_code
    assert (401, "unauthenticated", "the key is not known, has expired or was revoked") == error_of(
        after
    )


async def test_only_a_hash_of_the_token_is_stored(plane: Plane) -> None:
    """Who reads the database cannot come in with what it holds."""
    token = plane.key(Role.VIEWER)
    with plane.interlock.db.reading() as tx:
        rows = list(tx.connection.execute(api_key.select()).mappings())

    assert [hash_secret(token)] == [row["secret_hash"] for row in rows]
    assert token not in str(rows)


async def test_a_csrf_token_of_any_text_is_refused(plane: Plane) -> None:
    """Also one that is not ASCII; only the session's own lets a state change through."""
    headers = plane.session(plane.key(Role.OPERATOR))
    address = f"{API}/runs/unknown/cancel"
    own = await plane.send("POST", address, headers=headers)

    assert 404 == own.status_code
    for token in ("", "forged", "\u00e9"):
        answer = await plane.send("POST", address, headers=headers | {"X-CSRF-Token": token})
        assert (403, "forbidden") == error_of(answer)[:2], token
