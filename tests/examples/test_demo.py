from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from examples.service_desk.ending import check, expected_tickets
from examples.service_desk.stage import DemoError, Object, unbroken

ROOT = Path(__file__).resolve().parents[2]
DEMO = [sys.executable, "-m", "examples.service_desk.demo"]
NEW = ("13", "14", "15", "17")


def _start(folder: Path, url: str = "") -> subprocess.Popen[str]:
    env = os.environ | {"TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
    if url.startswith("postgres"):
        env["INTERLOCK_DATABASE_URL"] = url
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Started in the background, and every process started from here would ignore it too.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(
        DEMO,
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _processes_of(folder: Path) -> list[str]:
    """Return the commands of living processes that work in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_text().replace("\0", " ")
            if str(folder) in f"{(process / 'cwd').readlink()} {command}":
                found.append(command)
        except OSError:
            continue
    return found


@pytest.mark.timeout(240)
def test_demonstration_ends_as_promised(tmp_path: Path, default_database_url: str) -> None:
    """Without a terminal it tells all chapters, finds the tracker as expected, and cleans up."""
    with _start(tmp_path, default_database_url) as demo:
        told, _ = demo.communicate()

    assert 0 == demo.returncode, told
    for line in (
        "model: scripted",
        "waits for finance-data-owners",
        "was killed (signal 9)",
        "denied by mail-stays-inside",
        "No business key was written more than once",
        "exactly one child ticket",
    ):
        assert line in told
    assert [] == list(tmp_path.iterdir())
    assert [] == _processes_of(tmp_path)


@pytest.mark.timeout(120)
def test_interrupted_demonstration_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C in the middle ends every process and removes the data."""
    with _start(tmp_path) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "interlock serve, on" in line:
                demo.send_signal(signal.SIGINT)
                break
        told = demo.stdout.read()

    assert 130 == demo.returncode, told
    assert [] == list(tmp_path.iterdir())
    assert [] == _processes_of(tmp_path)


def test_an_interrupt_breaks_off_no_start_of_a_process() -> None:
    """It counts as soon as the process is known, and so can be ended."""
    started = []
    # A shell that starts the tests in the background has it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def start() -> None:
        with unbroken():
            signal.raise_signal(signal.SIGINT)
            started.append("the process")

    with pytest.raises(KeyboardInterrupt):
        start()

    assert ["the process"] == started
    assert signal.default_int_handler is signal.getsignal(signal.SIGINT)


def _after() -> Object:
    """Return a tracker that holds what is expected, and nothing else."""
    issues = [
        {
            **{name: value for name, value in ticket.items() if name != "replies"},
            "title": f"ticket {ticket['id']}",
            "messages": [{"author": author} for author in ticket["replies"]],
        }
        for ticket in expected_tickets(*NEW)
    ]
    grant = {"user": "dave", "share": "finance", "level": "read", "state": "active"}
    return {"issues": issues, "grants": [grant]}


def test_expected_end_is_accepted() -> None:
    """What was found is said, one line each."""
    found = check({"issues": []}, _after(), [], expected_tickets(*NEW))

    assert "exactly one child ticket, 16, of 15" in found


def test_second_child_ticket_is_refused() -> None:
    """An effect that happened twice fails the demonstration, whatever the model."""
    after = _after()
    after["issues"].append({**after["issues"][3], "id": "18"})

    with pytest.raises(DemoError, match="child ticket 2 times"):
        check({"issues": []}, after, [], None)


def test_mail_is_refused() -> None:
    """Nothing may have left."""
    with pytest.raises(DemoError, match="1 mails were sent"):
        check({"issues": []}, _after(), [{"to": "audit@ticket-archive.example"}], None)


def test_access_that_nobody_asked_for_is_refused() -> None:
    """The grant is compared whole."""
    after = _after()
    after["grants"][0]["state"] = "revoked"

    with pytest.raises(DemoError, match="access to shares"):
        check({"issues": []}, after, [], expected_tickets(*NEW))


def test_wrong_team_is_refused() -> None:
    """A ticket that is not where it belongs is named with what differs."""
    after = _after()
    after["issues"][0]["assignedto"] = "desktop"

    with pytest.raises(DemoError, match="ticket 13 has assignedto `desktop`, expected `netops`"):
        check({"issues": []}, after, [], expected_tickets(*NEW))
