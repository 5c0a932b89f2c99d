from __future__ import annotations

import stat

from interlock.serve.auth import hash_secret
from interlock.serve.local import KEY_FILE, local_token
from interlock.store import keys
from tests.serve.plane import API, Plane


def test_the_local_key_is_made_once_and_for_this_user_alone(plane: Plane) -> None:
    """Who can read the data folder may operate the installation; nobody else can."""
    token = local_token(plane.interlock)
    file = plane.interlock.config.data_dir / KEY_FILE

    assert token == local_token(plane.interlock) == file.read_text()
    assert 0o600 == stat.S_IMODE(file.stat().st_mode)


async def test_the_local_user_may_do_all_but_approve(plane: Plane) -> None:
    """Approvals are answered by named people with keys of their own."""
    token = local_token(plane.interlock)

    listed = await plane.send("GET", f"{API}/keys", token=token)
    answered = await plane.send("POST", f"{API}/approvals/any/answer", token=token)

    assert [200, 403] == [listed.status_code, answered.status_code]


def test_a_local_key_that_was_revoked_is_made_anew(plane: Plane) -> None:
    """So that nobody locks this machine's user out by accident."""
    first = local_token(plane.interlock)
    with plane.interlock.db.reading() as tx:
        found = keys.find_key(tx, hash_secret(first))
    assert found is not None
    plane.interlock.db.run("test.revoke", lambda tx: keys.revoke_key(tx, found.key_id))

    assert first != local_token(plane.interlock)
