"""The reference MCP servers of both eras, imported, reviewed and called as any other tool."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from mcp_types import CallToolResult
from ruamel.yaml import YAML

from interlock.domain.canonical import JsonObject
from tests.acceptance.reference_servers import (
    LIMIT_S,
    RESULT,
    REVIEWED,
    SYSTEMS,
    Plane,
    Seat,
    git,
    project,
    repository,
    review,
    seats,
    write,
)
from tests.cli.terminal import Server, approve, done, interlock, listed
from tests.serve.gateway.door import meta_of, text_of

pytestmark = [pytest.mark.peers, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """Import the tools of all servers, apply them as proposed, review them, and apply again."""
    folder = tmp_path_factory.mktemp("plane")
    (folder / "files").mkdir()
    repositories = [repository(folder / name) for name in ("plain", "hooked")]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MEMORY_FILE_PATH", str(folder / "memory.jsonl"))
        patch.setenv("GREETING", "hello")
        patch.setenv("PASSWORD_OF_ANOTHER", "hunter2")
        write(folder, project(folder))
        for system in SYSTEMS:
            done("tool", "import", "mcp", "--server", f"{system}-dev", "--owner", "platform")
        write(folder, seats(list(REVIEWED)))
        with Server(folder) as server:
            done("apply", "--yes")
            made = interlock("key", "create", "dana", "--role", "approver", "--group", "platform")
            plane = Plane(server=server, folder=folder, approver=made.out.strip())
            plane.names_before.extend(plane.seat().names())
            write(folder, review(folder, repositories))
            done("apply", "--yes")
            yield plane


@pytest.fixture
def seat(plane: Plane) -> Seat:
    """A new session of the agent."""
    return plane.seat()


def test_what_is_imported_is_pinned_and_nobody_can_use_it_before_it_is_reviewed(
    plane: Plane, seat: Seat
) -> None:
    """Whatever its server calls harmless is a blind write, which no grant covers."""
    yaml = YAML(typ="safe")
    tools = [yaml.load(path.read_text()) for path in (plane.folder / "tools").glob("*.yaml")]
    proposed = {tool["name"] for tool in tools}
    kept = [tool for tool in tools if tool["name"] not in REVIEWED]

    assert REVIEWED.keys() <= proposed
    assert "everything.simulate_research_query.call" not in proposed  # which only runs as a task
    assert all(tool["upstream"]["pin"].startswith("sha256:") for tool in tools)
    assert {("write", "blind")} == {(tool["group"], tool["effect"]["class"]) for tool in kept}
    assert [RESULT] == plane.names_before
    assert sorted([*(name.replace(".", "__") for name in REVIEWED), RESULT]) == sorted(seat.names())


def test_git_reads_and_commits_once_when_a_person_has_agreed(plane: Plane, seat: Seat) -> None:
    """The repository holds what was approved, and another repository is out of reach."""
    place = plane.folder / "plain"
    here: JsonObject = {"repo_path": str(place)}

    status = seat.call("git.status.call", here)
    seat.call("git.add.call", {**here, "files": ["second.txt"]})
    asked = seat.call("git.commit.call", {**here, "message": "second"})
    before = git(place, "rev-list", "--count", "HEAD")
    approve(plane.approver)
    made = seat.ended(asked)
    log = seat.call("git.log.call", here)
    elsewhere = seat.call("git.log.call", {"repo_path": str(plane.folder)})

    assert "second.txt" in text_of(status)
    assert "1" == before
    assert git(place, "rev-parse", "HEAD") in text_of(made)
    assert "2" == git(place, "rev-list", "--count", "HEAD")
    assert "second" in text_of(log)
    assert "refused (policy.denied): The helper works in its own repositories" in text_of(elsewhere)


def test_a_commit_whose_answer_is_lost_is_a_persons_case_and_made_once(
    plane: Plane, seat: Seat
) -> None:
    """The server dies between the commit and its answer; a person looks, and work goes on."""
    place = plane.folder / "hooked"
    here: JsonObject = {"repo_path": str(place)}
    told = place / ".git" / "told"
    os.mkfifo(told)
    hook = place / ".git" / "hooks" / "post-commit"
    hook.write_text(f"#!/bin/sh\necho made > {told}\nread answer < {told}\n")
    hook.chmod(0o755)

    seat.call("git.add.call", {**here, "files": ["second.txt"]})
    asked = seat.call("git.commit.call", {**here, "message": "second"})
    approve(plane.approver)
    made = told.read_text()
    plane.kill("mcp-server-git")
    lost = seat.ended(asked, waits_for="a person looks into it")
    hook.unlink()
    (parked,) = listed("effect", "parked")
    known = ("--external-id", git(place, "rev-parse", "HEAD"), "--reason", "it is in the log")
    done("effect", "resolve", str(parked["effect_id"]), "done", *known)
    settled = seat.ended(asked)
    (place / "third.txt").write_text("third")
    seat.call("git.add.call", {**here, "files": ["third.txt"]})
    asked = seat.call("git.commit.call", {**here, "message": "third"})
    approve(plane.approver)
    third = seat.ended(asked)

    assert "made\n" == made
    assert "pending" == meta_of(lost)["interlock/state"]
    assert "succeeded" == meta_of(settled)["interlock/state"]
    assert "succeeded" == meta_of(third)["interlock/state"], text_of(third)
    assert ["third", "second", "first"] == git(place, "log", "--format=%s").split()


def test_time_is_told_to_agents_and_in_workflows(plane: Plane, seat: Seat) -> None:
    """Structured results fit their contract, and an error of the server is told at once."""
    now = seat.call("time.current_time.get", {"timezone": "Asia/Tokyo"})
    converted = seat.call(
        "time.time.convert",
        {"source_timezone": "Etc/UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"},
    )
    nowhere = seat.call("time.current_time.get", {"timezone": "Nowhere/At_all"})
    (plane.folder / "noon.json").write_text('{"time": "12:00"}')
    run = done("run", "start", "clock", "--input", "noon.json")
    watched = interlock("run", "watch", run)

    assert "+09:00" in str(_structured(now)["datetime"])
    assert "T21:00:00+09:00" in str(_structured(converted)["target"])
    assert "failed (call.failed): " in text_of(nowhere)
    assert "Nowhere/At_all" in text_of(nowhere)
    assert "run succeeded" in watched.out


def test_files_are_read_and_written_in_their_folder_only(plane: Plane, seat: Seat) -> None:
    """What the server refuses comes to the agent as a sentence, and to nobody else."""
    path = str(plane.files / "note.txt")

    written = seat.call("filesystem.file.write", {"path": path, "content": "buy milk"})
    found = seat.call("filesystem.text_file.read", {"path": path})
    outside = seat.call("filesystem.text_file.read", {"path": "/etc/hostname"})
    kept = seat.call("filesystem.file.write", {"path": f"{plane.folder}/out.txt", "content": "x"})

    assert "succeeded" == meta_of(written)["interlock/state"]
    assert {"content": "buy milk"} == _structured(found)
    assert {"note.txt": "buy milk"} == {one.name: one.read_text() for one in plane.files.iterdir()}
    assert "failed (call.failed): Access denied - path outside" in text_of(outside)
    assert "failed (call.refused): Access denied - path outside" in text_of(kept)
    assert not (plane.folder / "out.txt").exists()


def test_a_read_whose_server_dies_is_sent_again(plane: Plane, seat: Seat) -> None:
    """A process is started anew for it, and the agent notices nothing."""
    slow = plane.files / "slow.txt"
    os.mkfifo(slow)
    try:
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(seat.call, "filesystem.text_file.read", {"path": str(slow)})
            with slow.open("w"):  # once the server has opened it
                plane.kill("server-filesystem")
            with slow.open("w") as answer:
                answer.write("after all")
            found = reading.result(LIMIT_S)
    finally:
        slow.unlink()

    assert {"content": "after all"} == _structured(found)


def test_memory_outlives_its_process(plane: Plane, seat: Seat) -> None:
    """It writes where the variable says that it was given."""
    milk: JsonObject = {"name": "milk", "entityType": "thing", "observations": ["is white"]}

    made = seat.call("memory.entities.create", {"entities": [milk]})
    plane.kill("server-memory")
    found = seat.call("memory.graph.read", {})

    assert "succeeded" == meta_of(made)["interlock/state"], text_of(made)
    assert {"entities": [milk], "relations": []} == _structured(found)
    assert "is white" in (plane.folder / "memory.jsonl").read_text()


def test_every_kind_of_result_reaches_the_agent(seat: Seat) -> None:
    """Text, structure and an image, and the server sees the listed variables only."""
    echo = seat.call("everything.echo.call", {"message": "hi"})
    total = seat.call("everything.sum.get", {"a": 2, "b": 3})
    weather = seat.call("everything.structured_content.get", {"location": "Chicago"})
    image = seat.call("everything.tiny_image.get", {})
    slow = seat.call("everything.long_running_operation.trigger", {"duration": 1, "steps": 2})
    variables = seat.call("everything.env.get", {})

    assert "Echo: hi" == text_of(echo)
    assert "The sum of 2 and 3 is 5." == text_of(total)
    assert {"temperature", "conditions", "humidity"} == _structured(weather).keys()
    assert ["text", "image", "text"] == [block.type for block in image.content]
    assert "Duration: 1 seconds, Steps: 2" in text_of(slow)
    assert {"GREETING": "hello"} == YAML(typ="safe").load(text_of(variables))


def test_a_server_that_says_something_else_is_quarantined_where_it_does(
    plane: Plane, seat: Seat
) -> None:
    """The time server describes its tools by the place where it runs."""
    here, there = (interlock("tool", "check", f"time-{name}") for name in ("dev", "stage"))
    called = seat.call("time.current_time.get", {"timezone": "Etc/UTC"})
    plane.seat("there", "stage").call("time.current_time.get", {"timezone": "Etc/UTC"})
    (refused,) = listed("effect", "list", "--workflow", "there")
    pinned = interlock("tool", "pin", "time.current_time.get")

    assert "changed" not in here.out
    assert "time.current_time.get: quarantined; the words below are the server's" in there.out
    assert "Asia/Tokyo" in there.out
    assert not called.is_error
    assert ("denied", "tool.quarantined") == (refused["state"], refused["error_code"])
    assert "its server changed its inputSchema since it was reviewed" in str(refused)
    assert "offer different definitions; register two tools" in pinned.err


def _structured(result: CallToolResult) -> JsonObject:
    assert isinstance(result.structured_content, dict), result
    return result.structured_content
