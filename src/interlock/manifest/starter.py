"""The project that `interlock init` writes: no write may run in it, and all has its place."""

from __future__ import annotations

from interlock.policy.defaults import DEFAULT_POLICIES, DEFAULT_TEAMS

_PROJECT = """\
# What may run is declared in this folder: systems, servers, tools, agents, workflows, policies.
# `interlock plan` shows what a change would do, `interlock apply` does it.
interlock: v1
kind: Project
name: {name}
title: {title}
labels: [pii]   # marks that data may carry
teams:          # who owns things and answers approvals
{teams}
"""

_SETTINGS = """\
# Settings of this installation; `INTERLOCK_PORT` and the like win over this file.
data_dir = ".interlock"

# The model that agents take unless they name another.
# [models.default]
# provider = "openai-chat:gpt-5-mini"
# api_key = "secret://openai/dev/key"
# accepts = ["pii"]   # labels that may be sent to it
"""

_IGNORED = ".interlock/\n"


def starter_files(name: str, *, title: str, owner: str) -> dict[str, str]:
    """Return the files of a new project by path: it loads as it is, read-only and at level 0.

    The default policies are written out, so that they can be read and changed; `owner` is its
    first team.
    """
    teams = "\n".join(f"  - {team}" for team in dict.fromkeys((owner, *DEFAULT_TEAMS)))
    return {
        "project.yaml": _PROJECT.format(name=name, title=title, teams=teams),
        "interlock.toml": _SETTINGS,
        ".gitignore": _IGNORED,
        **{f"policies/{file.path}": file.text for file in DEFAULT_POLICIES},
    }
