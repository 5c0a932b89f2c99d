"""Agents: who proposes calls, with which instructions, on which model, under whose name."""

from __future__ import annotations

from dataclasses import dataclass, field

from interlock.domain.canonical import JsonObject
from interlock.domain.ids import AgentName


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentLimits:
    """When an agent is stopped: model requests, refusals in a row, equal calls."""

    requests: int = 20
    refusals_in_a_row: int = 5
    equal_calls: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelBudget:
    """What one session of an outside agent may ask of models; without a cost, of any cost."""

    requests: int = 200
    cost_micro_usd: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSpec:
    """One version of an agent.

    `model` is the name of a model in the settings (`default` if the project does not care).
    `output_schema` is the contract of its final answer; None means plain text. `sponsor` is the
    person who answers for it. One that `is_outside` runs elsewhere, comes in by the gateway and has
    neither instructions nor model here; `models` are those that it may ask through the model proxy,
    each of its sessions within `budget`.
    """

    name: AgentName
    version: int
    title: str
    owner: str
    sponsor: str
    instructions: str = ""
    model: str = "default"
    output_schema: JsonObject | None = None
    limits: AgentLimits = field(default_factory=AgentLimits)
    is_outside: bool = False
    models: tuple[str, ...] = ()
    budget: ModelBudget = field(default_factory=ModelBudget)
