"""What the terminal prints: nothing that steers it, JSON that stays JSON, no traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from interlock.cli import output
from interlock.cli.output import cell, money, say, show_json, table, tells_errors, when
from interlock.domain.canonical import Json
from interlock.domain.errors import ConfigError, InputError, Problem
from tests.cli.terminal import interlock

HOSTILE = "a\x1b[31m\u202eb\x07[bold]c[/bold]:smile:\u200b"


def test_text_from_outside_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Escapes, direction marks, markup and emoji names are printed as what they are."""
    say(HOSTILE)
    table(("name",), [(HOSTILE,)], empty="")

    shown = "a⟨U+001B⟩[31m⟨U+202E⟩b⟨U+0007⟩[bold]c[/bold]:smile:⟨U+200B⟩"
    assert [shown, "name", shown] == [
        line.rstrip() for line in capsys.readouterr().out.splitlines()
    ]


def test_json_is_json_with_invisible_characters_escaped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A program reads the value as it is; a terminal is not steered by it."""
    value = {"title": HOSTILE, "name": "Zoë"}
    show_json({**value})

    printed = capsys.readouterr().out
    assert value == json.loads(printed)
    assert "\x1b" not in printed
    assert "Zoë" in printed


def test_a_pipe_gets_whole_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """A long value is not folded where nobody looks at it."""
    table(("id", "text"), [("x" * 100, "y" * 300)], empty="")

    assert 2 == len(capsys.readouterr().out.splitlines())


def test_values_are_rendered_for_people() -> None:
    """Absent, lists, booleans, times in UTC, money to the micro."""
    values: list[Json] = [None, True, ["a", "b"], [], 7]
    assert ["-", "yes", "a, b", "-", "7"] == [cell(value).plain for value in values]
    assert ("2023-11-14 22:13:20", "-") == (when(1_700_000_000_000_000), when(None))
    assert ("$0.001234", "-") == (money(1234), money(None))


@pytest.mark.usefixtures("folder")
def test_a_fault_of_ours_is_one_sentence_and_recorded(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    """The traceback is in a file of the data folder."""

    @tells_errors
    def broken() -> None:
        raise ValueError("not for people")

    with pytest.raises(typer.Exit) as stopped:
        broken()

    log = folder / ".interlock" / "cli.log"
    assert 1 == stopped.value.exit_code
    assert f"error: something went wrong on our side; `{log}` has the details\n" == (
        capsys.readouterr().err
    )
    assert "ValueError: not for people" in log.read_text()


@pytest.mark.parametrize(
    ("error", "printed"),
    [
        (InputError("no `x`; give one"), "error: no `x`; give one\n"),
        (
            ConfigError(
                (
                    Problem(path="a.toml", line=1, message="unknown key `b`", fix="drop it"),
                    Problem(path="a.toml", line=None, message="is empty"),
                )
            ),
            "error: a.toml:1: unknown key `b` (drop it)\nerror: a.toml: is empty\n",
        ),
        (FileNotFoundError(2, "No such file or directory", "x"), "error: No such file or"),
    ],
    ids=["one", "several", "system"],
)
def test_an_error_is_one_line_for_each_problem(
    capsys: pytest.CaptureFixture[str], error: Exception, printed: str
) -> None:
    """On stderr, with exit code 1."""

    @tells_errors
    def failing() -> None:
        raise error

    with pytest.raises(typer.Exit) as stopped:
        failing()

    assert 1 == stopped.value.exit_code
    assert capsys.readouterr().err.startswith(printed)


def test_ctrl_c_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    """As shells expect, without a word."""

    @tells_errors
    def stopped() -> None:
        raise KeyboardInterrupt

    with pytest.raises(typer.Exit) as ended:
        stopped()

    assert (130, "") == (ended.value.exit_code, capsys.readouterr().err)


@pytest.mark.usefixtures("folder")
def test_a_fault_in_the_application_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    """What fails behind the REST door is logged there, and told in one line here."""

    def broken(*_: object, **__: object) -> None:
        raise ValueError("not for people")

    monkeypatch.setattr("interlock.store.runs.list_runs", broken)

    code, error = interlock("run", "list").refusal

    assert (1, "error: something went wrong on our side; the log has the details") == (code, error)
    assert "not for people" in (folder / ".interlock" / "cli.log").read_text()
    assert output.out.is_terminal is False
