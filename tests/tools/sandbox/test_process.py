"""The process of a call: what its endings mean, and how code says what it offers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from interlock.domain.canonical import Json
from interlock.domain.effect import Reply, Transport
from interlock.domain.errors import InputError, UnavailableError
from interlock.tools.sandbox import process
from tests.tools.sandbox.box import need_sandbox, ran, server_of


@pytest.fixture
def walls() -> None:
    """Skip where there are none."""
    need_sandbox()


@pytest.fixture
def no_landlock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the same program with a need that no kernel meets."""
    folder = tmp_path / "sandbox"
    shutil.copytree(process.INSIDE.parent, folder)
    text = (folder / "walls.py").read_text()
    (folder / "walls.py").write_text(text.replace("OLDEST_LANDLOCK = 3", "OLDEST_LANDLOCK = 999"))
    monkeypatch.setattr(process, "INSIDE", folder / "inside.py")


@pytest.mark.usefixtures("walls")
async def test_functions_compute_with_the_standard_library() -> None:
    """Arguments come by name, the first may be the context, prints are no answer."""
    code = """
    import decimal, hashlib, json, re
    from datetime import date

    def f(context, text: str, n: int = 2):
        print('{"result": "forged"}')
        return {
            "text": re.sub("a", "b", text) * n,
            "sum": str(decimal.Decimal("0.1") + 1),
            "hash": hashlib.sha256(b"").hexdigest()[:8],
            "day": date(2026, 1, 2).isoformat(),
            "context": [context.key, context.attempt, context.secret],
        }
    """
    reply = await ran(code, secret="s3cret", arguments={"text": "ä-a"})

    expected = {"text": "ä-bä-b", "sum": "1.1", "hash": "e3b0c442", "day": "2026-01-02"}
    body: Json = {**expected, "context": ["k" * 32, 1, "s3cret"]}
    assert Reply(transport=Transport.REPLY, status=200, body=body) == reply


@pytest.mark.usefixtures("walls")
async def test_each_ending_says_what_was_seen() -> None:
    """A raise answers, also at import; a crash leaves the outcome unknown."""
    raised = await ran("def f():\n    raise KeyError('no such user')")
    broken = await ran("import nothing_such\n")
    left = await ran("import os\ndef f():\n    os._exit(0)")
    crashed = await ran("import ctypes\ndef f():\n    ctypes.string_at(0)")

    assert (True, "KeyError: 'no such user'") == (raised.is_error, raised.problem)
    assert (True, "ModuleNotFoundError: No module named 'nothing_such'") == (
        broken.is_error,
        broken.problem,
    )
    assert [Transport.UNKNOWN] * 2 == [left.transport, crashed.transport]


@pytest.mark.usefixtures("walls")
@pytest.mark.parametrize("line", ["[]", '{"result": 1, "result": 2}', "{", "x" * 3_000_000])
async def test_forged_answers_are_bounded_and_withheld(line: str) -> None:
    """Clever code finds the pipe of its answer, and can only spoil its own."""
    code = f"import os\ndef f():\n    os.write(3, b{line!r} + b'\\n')\n    os._exit(0)"
    reply = await ran(code)

    assert (Transport.REPLY, None) == (reply.transport, reply.body)
    assert reply.problem


@pytest.mark.usefixtures("no_landlock")
async def test_without_walls_no_code_is_run() -> None:
    """Nothing degrades: the call was not sent, and the doctor and the import say why."""
    reply = await ran("def f():\n    return 1")

    assert Transport.NOT_SENT is reply.transport
    assert "there is no sandbox" in str(reply.problem)
    if "Landlock" in str(reply.problem):  # where the other walls stand
        assert "Landlock 999 (Linux 6.2) is needed" in str(reply.problem)
    assert reply.problem == process.missing()
    with pytest.raises(UnavailableError):
        await process.described(server_of("def f(): ..."))


@pytest.mark.usefixtures("walls")
async def test_contracts_are_read_inside() -> None:
    """Public functions of the folder's own modules, with what JSON says of their annotations."""
    code = '''
    from typing import Literal
    from walls import helper

    def slug(text: str, size: int | None = None, how: Literal["a", "b"] = "a") -> list[str]:
        """Make a name of a title.

        Not said.
        """

    def _private(x): ...
    '''
    # A name that our own code has too.
    walls = "def helper(context, by: dict[str, float]) -> None: ..."

    slug, helper = sorted(
        await process.described(server_of(code, walls=walls)), key=lambda one: one.name
    )

    assert ("m.slug", "Make a name of a title.") == (slug.name, slug.title)
    assert {
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "size": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            "how": {"enum": ["a", "b"]},
        },
        "required": ["text"],
        "additionalProperties": False,
    } == slug.input_schema
    assert {"type": "array", "items": {"type": "string"}} == slug.output_schema
    assert ("walls.helper", {"type": "null"}) == (helper.name, helper.output_schema)
    assert ["by"] == helper.input_schema["required"]


@pytest.mark.usefixtures("walls")
@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("def f(x): ...", "parameter `x` of `m.f` needs a name and an annotation"),
        ("def f(*x: int): ...", "needs a name and an annotation"),
        ("def f(x: set[int]): ...", "uses the type `set[int]`"),
        ("async def f(): ...", "is `async`"),
        ("raise ValueError('at import')", "ValueError: at import"),
    ],
)
async def test_code_without_a_contract_is_not_imported(code: str, told: str) -> None:
    """The message says what to change."""
    with pytest.raises(InputError, match="the code of `box` does not load") as caught:
        await process.described(server_of(code))

    assert told in caught.value.message
