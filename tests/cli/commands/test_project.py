"""`init`, `plan`, `apply`: a folder becomes a release, or every problem is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.terminal import done, interlock


def test_init_writes_a_project_that_applies(folder: Path) -> None:
    """From nothing to a live release in two commands, read-only."""
    written = done("init", "desk")
    applied = done("apply", "desk", "--yes")

    assert "next: cd desk && interlock plan, then interlock apply" == written.splitlines()[-1]
    assert (folder / "desk" / "project.yaml").is_file()
    assert "release 1 is live" == applied.splitlines()[-1]


def test_init_replaces_no_file(folder: Path) -> None:
    """A second time there is something to lose."""
    done("init")
    before = (folder / "project.yaml").read_text()
    (folder / ".gitignore").unlink()

    code, error = interlock("init").refusal

    assert (1, True) == (code, error.startswith("error: `"))
    assert error.endswith("exists already; choose an empty folder")
    assert before == (folder / "project.yaml").read_text()
    assert not (folder / ".gitignore").exists()


@pytest.mark.usefixtures("project")
def test_plan_shows_and_changes_nothing() -> None:
    """A plan after a plan shows the same; after an apply, nothing."""
    first = done("plan")
    second = done("plan")
    done("apply", "--yes")

    assert first == second
    assert "+ workflow look" in first
    assert "  + autonomy" not in first
    assert "No changes to release 1." == done("plan")


@pytest.mark.usefixtures("project")
def test_plan_as_json_names_the_digest() -> None:
    """So that a program can apply exactly what a person was shown."""
    said = interlock("plan", "--json").json

    assert str(said["digest"]).startswith("sha256:")
    assert False is said["is_empty"]


@pytest.mark.usefixtures("project")
def test_apply_asks() -> None:
    """No is the default answer, and changes nothing."""
    said = interlock("apply", given="n\n")

    assert 1 == said.code
    assert "apply? [y/N]" in said.out
    assert "nothing is applied" in interlock("doctor").out


def test_every_problem_is_named_with_file_and_line(project: Path) -> None:
    """One line each, and no release."""
    (project / "workflows" / "look.yaml").write_text("interlock: v1\nkind: Workflow\nnaem: x\n")
    (project / "project.yaml").write_text("interlock: v1\nkind: Project\nname: [\n")

    code, error = interlock("apply", "--yes").refusal

    assert 1 == code
    lines = error.splitlines()
    assert all(line.startswith("error: ") for line in lines)
    assert any("workflows/look.yaml:3: unknown key `naem`" in line for line in lines)
    assert any("project.yaml:4: is not YAML" in line for line in lines)
    assert "Traceback" not in error


def test_a_broken_policy_is_named_with_file_and_line(project: Path) -> None:
    """Policies are read once the files around them are well."""
    (project / "policies" / "grants").mkdir(parents=True)
    (project / "policies" / "grants" / "x.cedar").write_text("permit (principal, action")

    code, error = interlock("plan").refusal

    assert (1, True) == (code, error.startswith("error: policies/grants/x.cedar:1: not Cedar"))


def test_a_folder_without_a_project_is_told_what_to_do(folder: Path) -> None:
    """The fix is in the sentence."""
    (folder / "empty").mkdir()

    code, error = interlock("plan", "empty").refusal

    assert (1, True) == (code, "make a project with `interlock init`" in error)
