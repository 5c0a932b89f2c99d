"""Project files to a release: parsed, converted and checked as a whole, all problems together."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar, cast

from pydantic import ValidationError

from interlock.domain.agent import AgentSpec
from interlock.domain.canonical import Json, JsonObject
from interlock.domain.canonical import parse as parse_json
from interlock.domain.errors import JsonError, ManifestError, Problem, did_you_mean
from interlock.domain.ids import AgentName, ToolName, WorkflowName
from interlock.domain.label import UNDECLARED
from interlock.domain.record import to_json
from interlock.domain.release import PolicyFile, Release, pin_of
from interlock.domain.tool import Environment, System, ToolVersion
from interlock.domain.workflow import WorkflowSpec
from interlock.manifest import convert
from interlock.manifest import schema as form
from interlock.manifest.checks.budgets import check_budget
from interlock.manifest.checks.tools import check_server, check_tool
from interlock.manifest.checks.workflows import check_workflow
from interlock.manifest.files import PROJECT_FILE, Document, parse
from interlock.manifest.misfits import misfits
from interlock.manifest.names import Names
from interlock.policy.defaults import DEFAULT_POLICIES
from interlock.policy.lint import check as check_policies
from interlock.tools.contract import check_schema

F = TypeVar("F", bound=form.AnyFile)
Lint = Callable[[Release], tuple[Problem, ...]]

_POLICY_FOLDER = "policies/"
_TRIGGER_KEYS = ("webhook", "queue", "cron", "manual", "session")
_CONNECTOR_KEY = {"http": "request", "mcp": "upstream", "python": "function", "sql": "query"}


def load(
    files: Mapping[str, str],
    *,
    previous: Release | None = None,
    lint: Lint = check_policies,
    today: str | None = None,
) -> Release:
    """Load the texts of a project, by path, into a release without a number.

    `previous` is the live release: a version that it published must not change its content, and
    the tool versions that are live in it are kept as old ones. `today` (as `2026-11-30`) is when it
    is to be applied: what is deprecated must not be called after its last day.

    Raises:
        ManifestError: carries every problem found, by file and line.
    """
    loader = _Loader(files=files, previous=previous or Release(), today=today)
    release = loader.run()
    if not loader.problems:
        loader.problems += lint(release)
    if loader.problems:
        unique = dict.fromkeys(loader.problems)
        raise ManifestError(tuple(sorted(unique, key=lambda p: (p.path, p.line or 0))))
    return release


@dataclass(slots=True, kw_only=True)
class _Loader:
    """What has been read so far, and what was wrong with it."""

    files: Mapping[str, str]
    previous: Release
    today: str | None
    problems: list[Problem] = field(default_factory=list)
    documents: dict[str, list[Document]] = field(default_factory=dict)
    where: dict[str, Document] = field(default_factory=dict)

    def run(self) -> Release:
        for path, text in sorted(self.files.items()):
            if path.endswith(".yaml"):
                self._parse(path, text)
        project = self._project()
        newest, old, live_versions = self._tools()
        release = Release(
            systems={file.name: convert.system(file) for _, file in self._files(form.SystemFile)},
            servers={
                file.name: convert.server(file, self.files)
                for _, file in self._files(form.ServerFile)
            },
            tools=newest,
            old_tools=old,
            live_versions=live_versions,
            agents={AgentName(a.name): a for a in self._agents()},
            workflows={WorkflowName(w.name): w for w in self._workflows()},
            budgets={file.name: convert.budget(file) for _, file in self._files(form.BudgetFile)},
            labels=tuple(sorted({*project.labels, UNDECLARED})) if project else (),
            teams=tuple(sorted(project.teams)) if project else (),
            bars=convert.bars(project) if project else {},
        )
        release = replace(
            release,
            quarantine=self._quarantine(release),
            policies=self._policies(project, release),
        )
        self._check(release)
        return release

    def _parse(self, path: str, text: str) -> None:
        try:
            documents = parse(path, text)
        except ManifestError as error:
            self.problems += error.problems
            return
        for document in documents:
            kind = document.content.get("kind")
            if isinstance(kind, str) and kind in form.KINDS:
                self.documents.setdefault(kind, []).append(document)
            else:
                message = "`kind` is missing" if kind is None else f"there is no kind `{kind}`"
                known = ", ".join(form.KINDS)
                fix = did_you_mean(str(kind), form.KINDS) or f"kinds are {known}"
                self.problems.append(document.problem(("kind",), message, fix))

    def _files(self, model: type[F]) -> list[tuple[Document, F]]:
        """Validate the documents of one kind; of two with the same name the first counts."""
        kind = next(name for name, known in form.KINDS.items() if known is model)
        found: list[tuple[Document, F]] = []
        for document in self.documents.get(kind, []):
            try:
                file = cast("F", model.model_validate(document.content))
            except ValidationError as error:
                self.problems += misfits(document, kind, error)
                continue
            name = file.name + (f"@{document.content['version']}" if kind == "Tool" else "")
            key = f"{kind} {name}"
            if key in self.where:
                first = self.where[key]
                message = f"`{name}` is declared in {first.path} already"
                self.problems.append(document.problem(("name",), message))
                continue
            self.where[key] = document
            found.append((document, file))
        return found

    def _project(self) -> form.ProjectFile | None:
        found = self._files(form.ProjectFile)
        if not self.documents.get("Project"):
            message = "the project file is missing"
            fix = "write its name, title and teams, or make a project with `interlock init`"
            self.problems.append(Problem(path=PROJECT_FILE, line=None, message=message, fix=fix))
        for document, _ in found[1:]:
            self.problems.append(document.problem(("kind",), "there are two project files"))
        return found[0][1] if found else None

    def _tools(
        self,
    ) -> tuple[dict[ToolName, ToolVersion], dict[str, ToolVersion], dict[str, int]]:
        """Return the newest versions, the others, and which is live where if that differs.

        In each environment the newest of the project's versions that are bound there is live.
        """
        versions = {f"{tool.name}@{tool.version}": tool for tool in self._read_tools()}
        newest: dict[ToolName, ToolVersion] = {}
        live: dict[ToolName, dict[str, int]] = {}
        for tool in sorted(versions.values(), key=lambda tool: tool.version):
            newest[tool.name] = tool
            bound = [name for name, target in tool.environments.items() if not target.is_past]
            live.setdefault(tool.name, {}).update(dict.fromkeys(bound, tool.version))
        published = {f"{t.name}@{t.version}": t for t in self.previous.tools.values()}
        every = {**self.previous.old_tools, **published, **versions}
        is_newest = {f"{tool.name}@{tool.version}" for tool in newest.values()}
        differing = {
            f"{name}@{environment}": version
            for name, bound in live.items()
            if {*bound.values()} - {newest[name].version}
            for environment, version in bound.items()
        }
        return newest, {k: t for k, t in every.items() if k not in is_newest}, differing

    def _read_tools(self) -> Iterator[ToolVersion]:
        for document, file in self._files(form.ToolFile):
            given = {key for key in _CONNECTOR_KEY.values() if getattr(file, key) is not None}
            wanted = _CONNECTOR_KEY[file.connector]
            if given != {wanted}:
                message = f"a tool with `connector: {file.connector}` has `{wanted}`"
                others = ", ".join(f"`{key}`" for key in sorted(given - {wanted}))
                fix = f"drop {others}" if others else f"add `{wanted}`"
                self.problems.append(document.problem(("connector",), message, fix))
            part = file.upstream
            if part and sum(map(bool, (part.tool, part.resource, part.prompt))) != 1:
                message = "give one of `tool`, `resource` and `prompt`"
                self.problems.append(document.problem(("upstream",), message))
                continue
            inputs = self._schema(document, ("contract", "input"), file.contract.input)
            output = self._schema(document, ("contract", "output"), file.contract.output)
            if given == {wanted} and inputs is not None and output is not None:
                yield convert.tool(file, schemas=(inputs, output))

    def _agents(self) -> Iterator[AgentSpec]:
        for document, file in self._files(form.AgentFile):
            output = None
            if file.output is not None:
                output = self._schema(document, ("output",), file.output)
                for message in check_schema(output or {}):
                    self.problems.append(document.problem(("output",), message))
            text = file.instructions or ""
            self.problems.extend(_misused(document, file))
            if re.fullmatch(r"\S+\.md", text):
                text = self.files.get(text, "")
                if not text.strip():
                    message = f"there is no text in `{file.instructions}`"
                    self.problems.append(document.problem(("instructions",), message))
            yield convert.agent(file, instructions=text.strip(), output=output)

    def _workflows(self) -> Iterator[WorkflowSpec]:
        for document, file in self._files(form.WorkflowFile):
            is_sound = True
            for name, part in file.triggers.items():
                given = [key for key in _TRIGGER_KEYS if getattr(part, key)]
                if len(given) != 1:
                    *most, last = (f"`{key}`" for key in _TRIGGER_KEYS)
                    message = f"a trigger has exactly one of {', '.join(most)} and {last}"
                    self.problems.append(document.problem(("triggers", name), message))
                    is_sound = False
            inputs = self._schema(document, ("inputs",), file.inputs)
            if is_sound and inputs is not None:
                yield convert.workflow(file, inputs=inputs)

    def _schema(self, document: Document, place: tuple[str, ...], given: Json) -> JsonObject | None:
        """Return an inline schema, or the one in the file that it names."""
        if isinstance(given, dict):
            return given
        path = str(given)
        if path not in self.files:
            known = [name for name in self.files if name.endswith(".json")]
            fix = did_you_mean(path, known) or "the path starts at the project's folder"
            self.problems.append(document.problem(place, f"there is no file `{path}`", fix))
            return None
        try:
            value = parse_json(self.files[path])
        except JsonError as error:
            self.problems.append(Problem(path=path, line=None, message=error.message))
            return None
        if not isinstance(value, dict):
            self.problems.append(Problem(path=path, line=None, message="a schema is an object"))
            return None
        return value

    def _quarantine(self, release: Release) -> dict[str, str]:
        """Keep what is quarantined until a newer version is pinned there."""
        kept: dict[str, str] = {}
        for key, reason in self.previous.quarantine.items():
            name, _, environment = key.partition("@")
            before, now = (
                side.live(ToolName(name), cast("Environment", environment))
                for side in (self.previous, release)
            )
            if before is not None and now is not None and now.version <= before.version:
                kept[key] = reason
        return kept

    def _policies(
        self, project: form.ProjectFile | None, release: Release
    ) -> tuple[PolicyFile, ...]:
        included = DEFAULT_POLICIES if project and project.include else ()
        declared = (convert.approval_policies(spec) for spec in release.workflows.values())
        own = [
            PolicyFile(path=path.removeprefix(_POLICY_FOLDER), text=text)
            for path, text in sorted(self.files.items())
            if path.startswith(_POLICY_FOLDER)
        ]
        made = (*included, *(file for file in declared if file is not None))
        for file in own:
            if file.path in {other.path for other in made}:
                message = "this name is taken by policies that are made from the project's files"
                path = _POLICY_FOLDER + file.path
                self.problems.append(
                    Problem(path=path, line=None, message=message, fix="call the file otherwise")
                )
        return (*made, *own)

    def _check(self, release: Release) -> None:
        names = self._names(release)
        for key, document in self.where.items():
            kind, _, name = key.partition(" ")
            tool_name, _, version = name.partition("@")
            if kind == "System":
                self._check_system(release.systems[name], document, names)
            elif kind == "Budget":
                budget = release.budgets[name]
                self.problems += check_budget(budget, document, names=names, release=release)
            elif kind == "Server":
                self.problems += check_server(release.servers[name], document, names)
            elif kind == "Tool":
                tool = release.tool_version(ToolName(tool_name), int(version))
                if tool is not None:
                    self.problems += check_tool(
                        tool, document, names=names, release=release, today=self.today
                    )
                    self._published(document, tool, self.previous_tool(tool))
            elif kind == "Agent":
                agent = release.agents[AgentName(name)]
                self.problems += names.missing(document, ("owner",), "team", agent.owner)
                self._published(document, agent, self.previous.agents.get(agent.name))
            elif kind == "Workflow" and name in release.workflows:
                spec = release.workflows[WorkflowName(name)]
                for view in release.views():
                    self.problems += check_workflow(spec, document, names=names, release=view)
                self._published(document, spec, self.previous.workflows.get(spec.name))

    def _check_system(self, system: System, document: Document, names: Names) -> None:
        self.problems += names.missing(document, ("owner",), "team", system.owner)

    def previous_tool(self, tool: ToolVersion) -> ToolVersion | None:
        """Return what was published under the same name and version."""
        return self.previous.tool_version(tool.name, tool.version)

    def _published(
        self,
        document: Document,
        now: ToolVersion | AgentSpec | WorkflowSpec,
        before: ToolVersion | AgentSpec | WorkflowSpec | None,
    ) -> None:
        if before is None or _content(before) == _content(now):
            return
        if now.version <= before.version:
            message = f"version {before.version} of `{now.name}` is published and cannot change"
            fix = f"call this content version {before.version + 1}"
            self.problems.append(document.problem(("version",), message, fix))

    def _names(self, release: Release) -> Names:
        known: dict[str, set[str]] = {
            kind: {str(document.content.get("name")) for document in self.documents.get(kind, [])}
            for kind in form.KINDS
        }
        # A vocabulary that could not be read must not make each use of it a problem.
        is_read = not any(problem.path == PROJECT_FILE for problem in self.problems)
        every = _Everything()
        return Names(
            known={
                **known,
                "team": set(release.teams) if is_read else every,
                "label": set(release.labels) if is_read else every,
            }
        )


def _misused(document: Document, file: form.AgentFile) -> Iterator[Problem]:
    """Yield what does not go together with where an agent runs."""
    if not file.outside and file.instructions is None:
        fix = "write them, or `outside: true` if it runs elsewhere"
        yield document.problem((), "`instructions` is missing", fix)
    if file.outside:
        for key in ("instructions", "model", "output", "limits"):
            if key in file.model_fields_set:
                message = f"an agent that runs outside has its `{key}` there"
                yield document.problem((key,), message, f"drop `{key}`")
    else:
        for key in ("models", "budget"):
            if key in file.model_fields_set:
                message = f"`{key}` is for an agent that runs outside"
                fix = f"drop `{key}`; its one model is `model`, its limits are `limits`"
                yield document.problem((key,), message, fix)


class _Everything(frozenset[str]):
    """A vocabulary that has every word."""

    __slots__ = ()

    def __contains__(self, word: object) -> bool:
        return True


def _content(value: ToolVersion | AgentSpec | WorkflowSpec) -> Json:
    """Return what a published version fixes: not where a tool goes, not how far a workflow goes."""
    if isinstance(value, ToolVersion):
        return pin_of(value)
    content = cast("JsonObject", to_json(value))
    for each in ("autonomy", "ceiling"):
        content.pop(each, None)
    return content
