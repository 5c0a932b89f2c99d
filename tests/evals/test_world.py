from __future__ import annotations

import sys
from pathlib import Path

import httpx2
import pytest

from interlock.domain.errors import UnavailableError
from interlock.evals.suite import Program, Secret
from interlock.evals.world import World, prepare, words

# Serves its home as files; what `prepare` and `export` do is in one line each.
SERVER = """
import http.server, pathlib, sys
home, port_file = sys.argv[1], pathlib.Path(sys.argv[sys.argv.index("--port-file") + 1])
class Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *args):
        super().__init__(*args, directory=home)
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
fresh = port_file.with_suffix(".part")
fresh.write_text(str(server.server_address[1]))
fresh.replace(port_file)
server.serve_forever()
"""
PREPARE = "import pathlib, sys; pathlib.Path(sys.argv[1], 'items.json').write_text('[1]')"
EXPORT = "import pathlib, sys; print(pathlib.Path(sys.argv[1], 'items.json').read_text())"
FILES = Program(
    serve=("{python}", "-c", SERVER, "{home}"),
    prepare=("{python}", "-c", PREPARE, "{home}"),
    export=("{python}", "-c", EXPORT, "{home}"),
    secrets=(Secret(reference="secret://files/dev/bot", file="items.json", prefix="bot:"),),
)


def world_of(program: Program, folder: Path, name: str = "world") -> World:
    """Return a world of one program, whose home is prepared."""
    programs = {"files": program}
    if not (folder / "prepared").exists():
        prepare(programs, folder=folder / "prepared", paths={})
    return World(programs, folder=folder / name, prepared=folder / "prepared", paths={})


def test_program_serves_what_was_prepared_and_exports_what_it_holds(tmp_path: Path) -> None:
    """Between enter and exit a program answers at its address; then it is gone."""
    with world_of(FILES, tmp_path) as world:
        url = f"{world.urls['files']}/items.json"
        served = httpx2.get(url).content
        (world.home("files") / "items.json").write_text("[1, 2]")
        exported = world.export()

    assert b"[1]" == served
    assert {"files": [1, 2]} == exported
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(url)


def test_each_repeat_gets_a_home_of_its_own(tmp_path: Path) -> None:
    """What one repeat wrote, the next one does not see."""
    with world_of(FILES, tmp_path, "a") as world:
        (world.home("files") / "items.json").write_text("[9]")
    with world_of(FILES, tmp_path, "b") as world:
        exported = world.export()

    assert {"files": [1]} == exported


def test_secrets_are_read_from_the_files_of_a_program(tmp_path: Path) -> None:
    """A secret is the prefix and the text of the file."""
    with world_of(FILES, tmp_path) as world:
        assert {"secret://files/dev/bot": "bot:[1]"} == world.secrets()


def test_program_that_does_not_start_says_why(tmp_path: Path) -> None:
    """The error carries the end of what the program printed."""
    broken = Program(serve=("{python}", "-c", "raise SystemExit('no licence')"))

    with pytest.raises(UnavailableError, match=r"`files` does not start: no licence"):
        world_of(broken, tmp_path).__enter__()


@pytest.mark.parametrize(
    "command",
    [("{python}", "-c", "raise SystemExit('no disk')"), ("/no/such/program",)],
)
def test_preparation_that_fails_says_why(tmp_path: Path, command: tuple[str, ...]) -> None:
    """A command that ends badly, or is not there, is one sentence."""
    program = Program(serve=("x",), prepare=command)

    with pytest.raises(UnavailableError, match=r"the preparation of `files` failed.*no "):
        prepare({"files": program}, folder=tmp_path, paths={})


def test_names_in_commands_become_paths() -> None:
    """Only known names are replaced; other braces stay."""
    command = words(("{python}", "{home}/a", "{other}"), {"home": Path("/h")})

    assert [sys.executable, "/h/a", "{other}"] == command
