"""Runs the tests of a project's policies: its files are read here, no installation is needed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from interlock.app import models_of
from interlock.config import Config
from interlock.domain.canonical import JsonObject
from interlock.domain.errors import InputError, ManifestError, Problem
from interlock.domain.release import Release
from interlock.domain.tool import ENVIRONMENTS
from interlock.manifest.files import Document, parse, read_folder
from interlock.manifest.load import load
from interlock.policy.engine import build_world
from interlock.policy.expect.cases import Case, read_case
from interlock.policy.expect.verdicts import Judged, judge
from interlock.policy.lint import check
from interlock.runtime.registry.rights import fits

TESTS = "policies/tests"
KIND = "PolicyTests"


def project(folder: Path, config: Config) -> Release:
    """Load a project's files with all checks; raises `ManifestError` with every problem."""
    return load(read_folder(folder), lint=partial(check, models=models_of(config)))


def run(folder: Path, config: Config) -> Iterator[Judged]:
    """Yield what came of each test of a project, in the order of its files.

    Raises `ManifestError` before the first if the project, or a file of tests, cannot be read, and
    `InputError` if there is none.
    """
    release, models = project(folder, config), models_of(config)
    cases = read(folder)
    worlds = {place: build_world(release, place, models=models) for place in ENVIRONMENTS}
    return (judge(case, worlds, fits=fits) for case in cases)


def read(folder: Path) -> list[Case]:
    """Read the tests of a project; raises as `run` does."""
    cases: list[Case] = []
    problems: list[Problem] = []
    for path in sorted((folder / TESTS).rglob("*.yaml")):
        name = path.relative_to(folder).as_posix()
        for document in parse(name, path.read_text("utf-8")):
            problems += _misfit(document)
            for place, test in enumerate(_tests(document)):
                try:
                    cases.append(read_case(test))
                except InputError as error:
                    problems.append(document.problem(("tests", place), error.message))
    if problems:
        raise ManifestError(tuple(problems))
    if not cases:
        raise InputError(f"there are no tests in `{folder / TESTS}`; write some, or leave this out")
    return cases


def _tests(document: Document) -> list[JsonObject]:
    found = document.content.get("tests")
    return [test for test in found if isinstance(test, dict)] if isinstance(found, list) else []


def _misfit(document: Document) -> Iterator[Problem]:
    """Yield how a document is no file of tests."""
    content = document.content
    found = content.get("tests")
    if content.get("interlock") != "v1" or content.get("kind") != KIND:
        yield document.problem((), f"a file of tests begins with `interlock: v1`, `kind: {KIND}`")
    elif {*content} != {"interlock", "kind", "tests"} or not isinstance(found, list):
        yield document.problem((), "beside its head a file of tests has `tests`, a list")
    elif len(_tests(document)) != len(found):
        yield document.problem(("tests",), "each test holds keys with values")
