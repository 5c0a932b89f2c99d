"""A credential is nowhere but in its store and in what is sent, however a call ends."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select

from interlock.domain.run import RunState
from interlock.store.engine import Database
from interlock.store.tables.schema import metadata
from interlock.testing.recorder import Fault, Recorder
from interlock.testing.recorder_project import WORKFLOW_OF, files
from interlock.tools.secrets.keyring import Keyring
from interlock.tools.secrets.sealed import SealedSecrets
from tests.road_bench import RoadBench

REFERENCE = "secret://recorder/dev/bot"
CANARY = "canary-7f3a9c51d2e84b60"
TEXT = "text-of-the-call"
FAULTS = ("refuse", "error", "reset", "cut", "schema", "oversized")


def test_a_credential_is_in_no_row_file_or_log(
    sqlite_url: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It was used by calls that succeed, fail and break off; what they wrote has its name only."""
    used = list[str]()
    kept: list[SealedSecrets] = []

    def resolve(reference: str) -> str:
        used.append(kept[0].resolve(reference))
        return used[-1]

    with Recorder(tmp_path / "outside") as recorder:
        project = _signed_in(files(recorder.url, timeout_s=1.0))
        with RoadBench(sqlite_url, project, resolve=resolve) as bench:
            # Sealed in the very database that is searched; the key file is not.
            kept.append(SealedSecrets(bench.db, Keyring(tmp_path / "keys" / "secrets.key")))
            kept[0].set(REFERENCE, CANARY, by="tests")
            states = {bench.get(bench.run(WORKFLOW_OF["keyed"], {"text": TEXT})).state}
            for kind in FAULTS:
                recorder.arm(Fault(kind=kind, path="/blind/items"))  # type: ignore[arg-type]
                states.add(bench.get(bench.run(WORKFLOW_OF["blind"], {"text": TEXT})).state)
            stored = _rows(bench.db)
    written = _files(tmp_path, besides=tmp_path / "keys") + stored
    printed = "".join(capfd.readouterr()) + caplog.text

    assert RunState.SUCCEEDED in states
    assert len(states) > 1
    assert [CANARY] * len(used) == used
    assert len(used) > len(FAULTS)
    # What is searched is really what the calls have written.
    assert TEXT in written
    assert REFERENCE in written
    assert CANARY not in written
    assert CANARY not in printed


def _signed_in(project: dict[str, str]) -> dict[str, str]:
    bound = f"{{server: recorder-dev, credentials: '{REFERENCE}'}}"
    changed = {
        path: text.replace("{server: recorder-dev}", bound) for path, text in project.items()
    }
    changed["servers/recorder-dev.yaml"] += "auth: bearer\n"
    return changed


def _rows(db: Database) -> str:
    with db.engine.connect() as connection:
        return "\n".join(
            repr(row)
            for table in metadata.sorted_tables
            for row in connection.execute(select(table))
        )


def _files(folder: Path, *, besides: Path) -> str:
    return "\n".join(
        path.read_bytes().decode(errors="replace")
        for path in sorted(folder.rglob("*"))
        if path.is_file() and besides not in path.parents
    )
