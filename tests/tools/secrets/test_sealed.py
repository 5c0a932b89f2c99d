"""Secrets are sealed in the database, replaced while they are in use, and bound to their place."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import select, update

from interlock.domain.errors import InputError, NotFoundError, UnavailableError
from interlock.store import migrate
from interlock.store.engine import Database
from interlock.store.tables.keys import secret as table
from interlock.testing.clock import ManualClock
from interlock.tools.secrets.keyring import Key, Keyring
from interlock.tools.secrets.sealed import SealedSecrets

ONE, OTHER = "secret://tracker/dev/agent", "secret://tracker/prod/agent"
HOUR_S = 3600


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still."""
    return ManualClock()


@pytest.fixture
def db(database_url: str, clock: ManualClock) -> Iterator[Database]:
    """An empty database of each kind."""
    with closing(Database(database_url, clock=clock)) as opened:
        migrate.upgrade(opened)
        yield opened


@pytest.fixture
def secrets(db: Database, tmp_path: Path) -> SealedSecrets:
    """Nothing stored yet."""
    return SealedSecrets(db, Keyring(tmp_path / "secrets.key"))


def test_stored_secret_is_resolved(secrets: SealedSecrets) -> None:
    """What was stored comes back, without a final line break; a new value replaces it."""
    assert 1 == secrets.set(ONE, "first", by="ann")
    assert 2 == secrets.set(ONE, "bot:pass word\n", by="ann")

    assert "bot:pass word" == secrets.resolve(ONE)
    assert ("bot:pass word",) == secrets.accepted(ONE)


def test_no_row_holds_a_value(db: Database, secrets: SealedSecrets) -> None:
    """Equal values do not look equal either."""
    for reference in (ONE, OTHER):
        secrets.set(reference, "canary-41c0ffee", by="ann")

    with db.reading() as tx:
        rows = tx.connection.execute(select(table)).all()

    assert "canary" not in str(rows)
    assert 2 == len({row.sealed for row in rows})


def test_the_one_before_counts_for_signatures_until_its_time(
    clock: ManualClock, secrets: SealedSecrets
) -> None:
    """What is sent is the new one at once."""
    secrets.set(ONE, "old", by="ann")
    secrets.rotate(ONE, "new", by="ann", overlap_s=HOUR_S)

    assert ("new", "old") == secrets.accepted(ONE)
    assert "new" == secrets.resolve(ONE)
    clock.advance(HOUR_S)
    assert ("new",) == secrets.accepted(ONE)


def test_secrets_are_rotated_and_sealed_anew_under_load(secrets: SealedSecrets) -> None:
    """Whoever opens one meanwhile gets the old or the new value, never an error."""
    values = [f"value-{number}" for number in range(8)]
    secrets.set(ONE, values[0], by="ann")
    secrets.set(OTHER, "stays", by="ann")

    def change() -> None:
        for value in values[1:]:
            secrets.rotate(ONE, value, by="ann", overlap_s=HOUR_S)
            secrets.rekey()

    with ThreadPoolExecutor(4) as pool:
        changed = pool.submit(change)
        seen = [
            pool.submit(lambda: (secrets.resolve(ONE), secrets.resolve(OTHER))).result()
            for _ in range(100)
        ]
        changed.result()

    assert {one for one, _ in seen} <= {*values}
    assert {"stays"} == {other for _, other in seen}
    assert values[-1] == secrets.resolve(ONE)


def test_new_key_seals_everything_and_old_ones_go(
    db: Database, secrets: SealedSecrets, tmp_path: Path
) -> None:
    """The one before stays in the file, for whoever was sealing with it at that moment."""
    secrets.set(ONE, "first", by="ann")
    secrets.set(ONE, "second", by="ann", overlap_s=HOUR_S)

    counts = [secrets.rekey() for _ in range(3)]

    with db.reading() as tx:
        used = set(tx.connection.execute(select(table.c.key_id)).scalars())
    kept = [line.split()[0] for line in (tmp_path / "secrets.key").read_text().splitlines()]
    assert [2, 2, 2] == counts
    assert ({kept[-1]}, 2) == (used, len(kept))
    assert ("second", "first") == secrets.accepted(ONE)


def test_what_is_sealed_anew_twice_while_it_is_opened_is_opened(
    secrets: SealedSecrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key of the row that was read is gone by then; the row of now has another."""
    secrets.set(ONE, "value", by="ann")
    find, is_late = Keyring.find, [True]

    def late(keyring: Keyring, key_id: str) -> Key:
        if is_late.pop() if is_late else False:
            secrets.rekey()
            secrets.rekey()
        return find(keyring, key_id)

    monkeypatch.setattr(Keyring, "find", late)

    assert "value" == secrets.resolve(ONE)


def test_row_that_stands_for_another_is_refused(db: Database, secrets: SealedSecrets) -> None:
    """Who can write rows cannot give one system the credentials of another."""
    secrets.set(ONE, "of dev", by="ann")
    secrets.set(OTHER, "of prod", by="ann")
    with db.transaction("test.swap") as tx:
        sealed = tx.connection.execute(
            select(table.c.sealed).where(table.c.reference == OTHER)
        ).scalar_one()
        tx.connection.execute(update(table).where(table.c.reference == ONE).values(sealed=sealed))

    with pytest.raises(UnavailableError, match="was changed in the database"):
        secrets.resolve(ONE)


def test_lost_key_file_is_named(secrets: SealedSecrets, tmp_path: Path) -> None:
    """What it opened is not opened by a new one."""
    secrets.set(ONE, "first", by="ann")
    (tmp_path / "secrets.key").unlink()

    with pytest.raises(UnavailableError, match="restore that file"):
        secrets.resolve(ONE)


def test_removed_secret_is_gone(db: Database, secrets: SealedSecrets) -> None:
    """With every version; what is not stored cannot be removed or rotated."""
    secrets.set(ONE, "first", by="ann")
    secrets.remove(ONE)

    with db.reading() as tx:
        assert [] == tx.connection.execute(select(table)).all()
    with pytest.raises(UnavailableError, match="no secret is stored at"):
        secrets.resolve(ONE)
    with pytest.raises(NotFoundError):
        secrets.remove(ONE)
    with pytest.raises(NotFoundError):
        secrets.rotate(ONE, "second", by="ann", overlap_s=0)


@pytest.mark.parametrize("text", ["hunter2", "secret://a/b", "secret://a/b/../c", "secret://a//c"])
def test_what_is_no_reference_is_refused_unrepeated(secrets: SealedSecrets, text: str) -> None:
    """It may be a secret itself."""
    with pytest.raises(InputError) as refused:
        secrets.resolve(text)

    assert text not in str(refused.value)


@pytest.mark.parametrize("value", ["", "\n", "two\nlines", "a\x00b", "x" * 70_000])
def test_what_cannot_be_sent_is_not_stored(secrets: SealedSecrets, value: str) -> None:
    """A secret is one line of printable text."""
    with pytest.raises(InputError, match="one line of text"):
        secrets.set(ONE, value, by="ann")
