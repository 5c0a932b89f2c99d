"""Runs a suite against its project, each repeat on an installation in this process."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from interlock.app import Interlock
from interlock.config import Config, ModelSettings, load
from interlock.domain.canonical import JsonObject, digest
from interlock.domain.errors import InputError, InterlockError, ManifestError, Problem
from interlock.domain.ids import WorkflowName
from interlock.domain.principal import Principal, PrincipalKind
from interlock.evals import report, runner, suite
from interlock.evals.suite import Suite
from interlock.manifest import files
from interlock.manifest.load import load as load_project
from interlock.tools.functions import installed_functions


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What a suite said (the form is `evals.report.body`), and the project's files that it saw.

    `is_whole` says that every case ran, as often as the suite wants: less is no evidence.
    """

    body: JsonObject
    texts: Mapping[str, str]
    is_whole: bool


def run(
    folder: Path,
    *,
    case_ids: tuple[str, ...] = (),
    repeats: int | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Judged:
    """Run the suite in `folder`, or some of its cases, and return its result.

    The programs that the suite names are started, on loopback, with their data in a temporary
    folder; `tell` hears how each case ended. Raises `InputError` for a suite or a project that
    does not load, before anything is started.
    """
    folder = folder.resolve()
    golden = read(folder)
    cases = suite.chosen(golden, case_ids)
    project = folder / golden.project
    texts = files.read_folder(project)
    workflow = load_project(texts).workflows.get(WorkflowName(golden.workflow))
    if workflow is None:
        raise InputError(f"the project has no workflow `{golden.workflow}`")
    install = Installer(settings=load(project, {}), texts=texts)
    results: list[runner.CaseResult] = []
    with tempfile.TemporaryDirectory(prefix="interlock-eval-") as name:
        scratch = Path(name)
        runner.prepare_worlds(golden, folder=folder, scratch=scratch)
        for case in cases:
            result = runner.run_case(
                golden,
                case,
                install,
                folder=folder,
                scratch=scratch,
                repeats=repeats or golden.repeats,
            )
            tell(f"{result.verdict:<9} {case.id}")
            results.append(result)
    versions = report.Versions(
        suite=suite.digest_of(folder),
        project=digest({**texts}),
        workflow=workflow.version,
        interlock=version("interlock"),
    )
    return Judged(
        body=report.body(golden, results, versions=versions),
        texts=texts,
        is_whole=len(results) == len(golden.cases)
        and (repeats or golden.repeats) >= golden.repeats,
    )


def read(folder: Path) -> Suite:
    """Read the suite in a folder; raises `ManifestError` with every problem found."""
    path = folder / suite.SUITE_FILE
    try:
        documents = files.parse(str(path), path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error.reason
        raise _broken(path, f"cannot be read: {why}") from None
    if len(documents) != 1:
        raise _broken(path, f"a suite is one document, this file holds {len(documents)}")
    return suite.read(documents[0].content, folder, complain=documents[0].problem)


class Installer:
    """Makes an installation of a project for one repeat, bound to the repeat's world.

    Settings are those of the project's folder; the caller's environment has no say, so that a
    suite says the same everywhere.
    """

    def __init__(self, *, settings: Config, texts: Mapping[str, str]) -> None:
        self._settings = settings
        self._texts = texts

    def __call__(self, site: runner.Site) -> Interlock:
        """Open the installation, with the secrets stored and the project applied."""
        models = self._settings.models.items()
        config = replace(
            self._settings,
            data_dir=site.data_dir,
            database_url=None,
            crash_file=None,
            secrets_key_file=None,
            models={name: _scripted(model, site.model_url) for name, model in models},
        )
        interlock = Interlock.open(config, functions=installed_functions())
        try:
            for reference, value in site.secrets.items():
                interlock.secrets.set(reference, value, by=runner.SENDER)
            interlock.apply(
                _rebound(self._texts, site.servers),
                by=Principal(name=runner.SENDER, kind=PrincipalKind.SERVICE),
                diff=None,
            )
        except InterlockError:
            interlock.close()
            raise
        return interlock


def _scripted(model: ModelSettings, url: str) -> ModelSettings:
    """Return a model that is answered at `url`; without declared prices it costs nothing."""
    return replace(
        model,
        provider="openai-chat:scripted",
        base_url=f"{url}/v1",
        api_key=None,
        input_price_micro_usd_per_mtok=model.input_price_micro_usd_per_mtok or 0,
        output_price_micro_usd_per_mtok=model.output_price_micro_usd_per_mtok or 0,
    )


def _rebound(texts: Mapping[str, str], servers: Mapping[str, str]) -> dict[str, str]:
    """Return the project's files with other addresses for the servers named."""
    rebound = dict(texts)
    found: set[str] = set()
    for path in (path for path in texts if path.startswith("servers/")):
        contents = [document.content for document in files.parse(path, texts[path])]
        for content in contents:
            name = str(content.get("name"))
            if name in servers:
                found.add(name)
                content["url"] = servers[name]
        # JSON is YAML.
        rebound[path] = "\n---\n".join(json.dumps(content) for content in contents)
    missing = sorted(set(servers) - found)
    if missing:
        raise InputError(f"the project has no server `{missing[0]}`, which the suite's world names")
    return rebound


def _broken(path: Path, message: str) -> ManifestError:
    return ManifestError((Problem(path=str(path), line=None, message=message),))
