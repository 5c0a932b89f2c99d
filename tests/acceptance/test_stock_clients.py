"""Stock clients of agents at a running gateway, as the how-to connects them.

Those that need an environment of their own are marked `clients`.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet

from interlock.testing.recorder import Recorder
from interlock.testing.recorder_project import session_files
from tests.acceptance.gateway import Passing, before, leave
from tests.acceptance.stock import Caller, inspecting, inspector, played, typing
from tests.cli.terminal import Server, approve, done, interlock, listed, until

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "outside-agents.md"
FIND, WRITE = "recorder__item__find", "recorder__item__create_keyed"
ASKED, UNGRANTED = "recorder__item__create_blind", "recorder__item__create_linked"
RESULT = "interlock__result"
MAY_GUESS = {"mcp", "claude-code-config", "fastmcp"}
"""The others call no tool which they were not told of, whatever their model says."""
HOLDS = {"inspector-modern"}
"""It takes tasks, so its call returns when people have answered."""
NO_X = """
@id("no-x") @owner("platform") @why("Items are not called X")
forbid (principal, action == Action::"recorder.item.create_keyed", resource)
when { context.args.text == "X" };
"""
pytestmark = pytest.mark.timeout(180)


@dataclass(frozen=True, kw_only=True)
class Plane:
    """A server with an outside agent, in whose folder the programs of the page are too."""

    url: str
    folder: Path
    recorder: Recorder

    def seat(self, name: str) -> dict[str, str]:
        """Return what a new agent finds in its environment."""
        made = interlock("key", "create", name, "--agent", "outside/helper", "--env", "dev")
        key_id = made.err.split()[1].rstrip(";")
        key = made.out.strip()
        return {"INTERLOCK_URL": self.url, "INTERLOCK_AGENT_KEY": key, "AGENT_KEY_ID": key_id}


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """Run a server; of the writes one waits for people and one is forbidden for a text."""
    folder = tmp_path_factory.mktemp("plane")
    with pytest.MonkeyPatch.context() as patch, Recorder(tmp_path_factory.mktemp("tool")) as tool:
        patch.chdir(folder)
        files = session_files(tool.url, granted=("read", "keyed", "blind"), approved=("blind",))
        files |= {"policies/guardrails/names.cedar": NO_X} | programs()
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        with Server(folder) as server:
            done("apply", "--yes")
            rights = ("--role", "viewer", "--role", "approver", "--group", "data-owners")
            made = interlock("key", "create", "dana", *rights)
            patch.setenv("DANAS_TOKEN", made.out.strip())
            yield Plane(url=server.url, folder=folder, recorder=tool)


def programs() -> dict[str, str]:
    """Return the files of the page by name: programs, and the one block of JSON."""
    blocks = re.findall(r"(?ms)^```(?:py|json)\n(.*?)^```", PAGE.read_text("utf-8"))
    heads = [re.match(r"# (\S+)\n", text) for text in blocks]
    names = [head[1] if head else ".mcp.json" for head in heads]
    return dict(zip(names, blocks, strict=True))


Connect = Callable[[Plane, dict[str, str]], AbstractContextManager[Caller]]


def _typing(program: str) -> Connect:
    return lambda plane, env: typing(program, plane.folder, env)


def _played(name: str) -> Connect:
    return lambda plane, env: played(name, plane.folder, env)


def _inspecting(era: str) -> Connect:
    def connect(plane: Plane, env: dict[str, str]) -> AbstractContextManager[Caller]:
        return inspecting(era, plane.folder, env, _token(env))

    return connect


def _token(env: dict[str, str]) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INTERLOCK_AGENT_KEY", env["INTERLOCK_AGENT_KEY"])
        return done("token", "mint")


def _apart(name: str, connect: Connect) -> ParameterSet:
    return pytest.param(connect, id=name, marks=pytest.mark.peers)


@pytest.mark.parametrize(
    "connect",
    [
        pytest.param(_typing("agent_mcp"), id="mcp"),
        pytest.param(_typing(".mcp.json"), id="claude-code-config"),
        _apart("fastmcp", _typing("agent_fastmcp")),
        _apart("langgraph", _played("langgraph")),
        _apart("openai", _played("openai")),
        _apart("adk", _played("adk")),
        _apart("inspector-legacy", _inspecting("legacy")),
        _apart("inspector-modern", _inspecting("modern")),
    ],
)
def test_a_stock_client_works_as_the_page_says(
    plane: Plane, connect: Connect, request: pytest.FixtureRequest
) -> None:
    """It sees its tools, reads, writes, understands a refusal, and gets what people approve."""
    name = request.node.callspec.id
    with connect(plane, plane.seat(name)) as client:
        names = client.names()
        found = client.call(FIND, {})
        made = client.call(WRITE, {"text": f"by {name}"})
        broken = client.call(WRITE, {"text": "a", "txt": "a"})
        denied = client.call(WRITE, {"text": "X"})
        run_id, ended = (_held if name in HOLDS else _handed)(plane, client, f"for {name}")
        unknown = client.call(UNGRANTED, {"text": "a"}) if name in MAY_GUESS else ""

    assert sorted((FIND, WRITE, ASKED, RESULT)) == sorted(names)
    assert found.startswith('{"items":'), found
    assert f'"text":"by {name}"' in made, made
    assert "refused (contract.violated)" in broken, broken
    assert "'txt' was unexpected" in broken, broken
    assert "refused (policy.denied): Items are not called X" in denied, denied
    assert f'"text":"for {name}"' in ended, ended
    assert name not in MAY_GUESS or "there is no tool `recorder.item.create_linked`" in unknown
    refused = 3 if name in MAY_GUESS else 2
    assert ["denied"] * refused + ["succeeded"] * 3 == _states(run_id)


def _handed(plane: Plane, client: Caller, text: str) -> tuple[str, str]:
    """Make the call that waits: the client is given a handle, and asks again once Dana approved."""
    asked = client.call(ASKED, {"text": text})
    (handle,) = re.findall(r'"handle": "([^"]+)"', asked)
    still = client.call(RESULT, {"handle": handle})
    _approve(plane)
    assert "pending: people are asked to approve it" in asked, asked
    assert handle in still
    return handle.partition("/")[0], client.call(RESULT, {"handle": handle})


def _held(plane: Plane, client: Caller, text: str) -> tuple[str, str]:
    """Make the call that waits: it is a task, for whose end the client stays."""
    with ThreadPoolExecutor(1) as pool:
        called = pool.submit(client.call, ASKED, {"text": text})
        until(lambda: len(listed("approval", "list")) == 1)
        (approval,) = listed("approval", "list")
        assert not called.done()
        _approve(plane)
        return str(approval["run_id"]), called.result()


def _approve(plane: Plane) -> None:
    """Approve the one call that waits, as Dana, and wait until it is made."""
    done_before = len(plane.recorder.log().effects)
    approve(os.environ["DANAS_TOKEN"])
    plane.recorder.wait_for(effects=done_before + 1)


def _states(run_id: str) -> list[str]:
    """Return how the calls of a session ended."""
    effects = listed("effect", "list", "--workflow", "outside")
    return sorted(str(effect["state"]) for effect in effects if effect["run_id"] == run_id)


@pytest.mark.peers
def test_the_inspector_lists_the_tools_of_a_seat(plane: Plane) -> None:
    """The command of the page, with the locked package where it takes the newest."""
    (command,) = re.findall(r"(?ms)^```sh\n(npx .*?)^```", PAGE.read_text("utf-8"))
    locked = command.replace("npx @modelcontextprotocol/inspector", shlex.join(inspector()))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "HOME": str(plane.folder), **plane.seat("inspected")}
    said = subprocess.run(
        ["sh", "-c", locked], env=env, capture_output=True, text=True, check=False
    )

    assert locked != command
    assert f'"{FIND}"' in said.stdout, said


@pytest.mark.peers
def test_a_retry_of_the_agents_sdk_is_the_same_call(plane: Plane) -> None:
    """The answer of a write is lost on its way; the SDK sends it again, and it is done once."""
    lost = threading.Event()

    def lose_one(passing: Passing) -> bytes:
        if lost.is_set() or b'"by one"' not in passing.body.replace(b"\\", b""):
            return leave(passing)
        lost.set()
        return passing.answer(502, b"{}")

    folder = plane.folder / "fixed"
    folder.mkdir()
    (folder / "seat.py").write_text(FIXED)
    (folder / "agent_openai.py").write_text((plane.folder / "agent_openai.py").read_text())
    env = plane.seat("retry")
    env["TOKEN"] = _token(env)
    done_before = len(plane.recorder.log().effects)
    with before(plane.url) as proxy:
        proxy.spoil = lose_one
        with played("openai", folder, env | {"INTERLOCK_URL": proxy.url}) as client:
            client.names()
            made = client.call(WRITE, {"text": "by one"})

    assert lost.is_set()
    assert '"text":"by one"' in made, made
    assert 1 == len(plane.recorder.log().effects) - done_before


FIXED = """
import os

import httpx2

GATEWAY = os.environ["INTERLOCK_URL"] + "/mcp"


class seat(httpx2.Auth):
    def auth_flow(self, request):
        request.headers["Authorization"] = "Bearer " + os.environ["TOKEN"]
        yield request
"""
"""A `seat.py` with one token: tokens are for the address of the server, not for a proxy's."""
