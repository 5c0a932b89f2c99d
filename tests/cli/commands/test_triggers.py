"""`trigger`: what starts runs, and a schedule that is paused, resumed and fired by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.terminal import done, interlock


@pytest.fixture
def applied(project: Path) -> Path:
    """The sample project, live."""
    done("apply", "--yes")
    return project


@pytest.mark.usefixtures("applied")
def test_triggers_are_listed_and_shown() -> None:
    """A webhook with its conditions, a schedule with its next tick."""
    listed = [line.split()[:3] for line in done("trigger", "list").splitlines()]

    assert ["look", "delivery", "webhook"] in listed
    assert "  only if body:/type is created" in done("trigger", "show", "look", "delivery")
    hourly = done("trigger", "show", "look", "hourly")
    assert "source       0 * * * *" in hourly
    assert "time zone    UTC" in hourly
    assert interlock("trigger", "show", "look", "hourly", "--json").json["next_us"] is not None


def test_a_queue_is_shown_with_its_key_and_dead_letter(project: Path) -> None:
    """And the doctor says who reads it, here where no server runs."""
    file = project / "workflows" / "look.yaml"
    hook = "    webhook: desk\n    secret: secret://desk/dev/hook\n"
    queue = "    queue: {url: nats://mq:4222, name: orders, dedupe: 'body:/id', dead_letter: bad}\n"
    file.write_text(file.read_text().replace(hook, queue))
    done("apply", "--yes")

    shown = done("trigger", "show", "look", "delivery")

    assert "source       nats://mq:4222/orders#interlock" in shown
    assert "dedupe       body:/id" in shown
    assert "dead letter  bad" in shown
    assert "1 in the live release; `interlock serve` reads them" in interlock("doctor").out


@pytest.mark.usefixtures("applied")
def test_a_schedule_is_paused_and_resumed() -> None:
    """A paused one has no next tick."""
    assert "paused" == done("trigger", "pause", "look", "hourly")
    paused = interlock("trigger", "show", "look", "hourly", "--json").json
    assert "resumed" == done("trigger", "resume", "look", "hourly")
    resumed = interlock("trigger", "show", "look", "hourly", "--json").json

    assert (True, None) == (paused["is_paused"], paused["next_us"])
    assert (False, False) == (resumed["is_paused"], resumed["next_us"] is None)


@pytest.mark.usefixtures("applied")
def test_a_schedule_is_fired_by_hand() -> None:
    """The run is there, with the trigger's name."""
    run_id = done("trigger", "fire", "look", "hourly")

    assert "trigger      look/hourly" in done("run", "show", run_id)


@pytest.mark.parametrize("command", ["show", "pause", "resume", "fire"])
@pytest.mark.usefixtures("applied")
def test_an_unknown_trigger_is_one_sentence(command: str) -> None:
    """Whichever of the two names is wrong."""
    assert (1, "error: there is no trigger `look/no`") == (
        interlock("trigger", command, "look", "no").refusal
    )


@pytest.mark.usefixtures("applied")
def test_only_a_schedule_is_fired() -> None:
    """A webhook fires when its sender says so."""
    code, error = interlock("trigger", "fire", "look", "delivery").refusal

    assert (1, "error: the trigger `look/delivery` is not a schedule") == (code, error)
