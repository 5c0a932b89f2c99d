"""What a run needs of the worker that runs it, read from the release that it is pinned to."""

from __future__ import annotations

from dataclasses import replace

from interlock.domain.release import RELEASE_FORMAT, Release
from interlock.domain.run import Abilities, Run
from interlock.domain.tool import Environment, PythonCall, ToolVersion
from interlock.store import registry
from interlock.store.tx import Tx

_KEPT = 1024


class ReleaseNeeds:
    """Says what runs need; releases never change, so each is read once.

    The functions are those of the tools that the run's workflow may use in its environment, as its
    own release binds them; a binding that changed meanwhile is met when the call is sent.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, str, str], Abilities] = {}

    def __call__(self, tx: Tx, run: Run) -> Abilities:
        """Return what a worker must have to run this run."""
        request = run.request
        key = (request.release, request.workflow, request.environment)
        if key not in self._known:
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[key] = _needed(tx, run)
        pinned, live = self._known[key], registry.live_format(tx)
        # Policies and bindings are always those of the live release.
        return pinned if live <= pinned.release_format else replace(pinned, release_format=live)


def _needed(tx: Tx, run: Run) -> Abilities:
    written = registry.format_of(tx, run.request.release)
    if written > RELEASE_FORMAT:
        return Abilities(release_format=written)
    release = registry.get_release(tx, run.request.release)
    return Abilities(release_format=written, functions=_functions(release, run))


def _functions(release: Release, run: Run) -> frozenset[str]:
    spec = release.workflows.get(run.request.workflow)
    if spec is None:
        return frozenset()
    tools = (release.live(name, run.request.environment) for name in spec.every_tool)
    return frozenset(
        tool.request.function
        for tool in tools
        if tool is not None
        and isinstance(tool.request, PythonCall)
        and _is_installed_code(release, tool, run.request.environment)
    )


def _is_installed_code(release: Release, tool: ToolVersion, environment: Environment) -> bool:
    """Whether a tool is a function that a worker brings; untrusted code comes with the release."""
    bound = tool.environments.get(environment)
    return bound is not None and release.servers[bound.server].kind == "python"
