"""REST: the ledger of effects, single calls with all their reasons, and settling parked ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from interlock.calls import reconcile
from interlock.domain.canonical import JsonObject
from interlock.domain.effect import Effect, EffectState
from interlock.domain.errors import NotFoundError
from interlock.domain.ids import EffectId, WorkflowName
from interlock.domain.principal import Principal
from interlock.domain.record import object_to_json, to_json
from interlock.serve.auth import App
from interlock.serve.routes.runs import Before, Limit, Operator, Reader
from interlock.serve.strict import TEXT_MOST, Body, StrictRoute
from interlock.store import approvals, decisions, effects
from interlock.store.tx import Tx

router = APIRouter(prefix="/effects", tags=["effects"], route_class=StrictRoute)


class SettleBody(Body):
    """A person's word on an effect of unknown outcome."""

    answer: Literal["done", "absent", "abandoned"]
    reason: str = Field(min_length=3, max_length=TEXT_MOST)
    external_id: str | None = Field(default=None, max_length=TEXT_MOST)


@router.get("")
def list_effects(
    app: App,
    reader: Reader,
    *,
    workflow: WorkflowName | None = None,
    state: Annotated[list[EffectState] | None, Query()] = None,
    limit: Limit = 100,
    before_us: Before = None,
) -> JsonObject:
    """List effects, newest first."""
    with app.db.reading() as tx:
        found = effects.list_effects(
            tx,
            tenant=reader.tenant,
            workflow=workflow,
            states=tuple(state or ()),
            limit=limit,
            before_us=before_us,
        )
        return {"effects": [object_to_json(app.shown_effect(tx, effect)) for effect in found]}


@router.get("/{effect_id}")
def show_effect(app: App, reader: Reader, effect_id: str) -> JsonObject:
    """Return one call: proposal, decisions with reasons, approvals, evidence, outcome.

    What its contract classes is redacted; who approves a call sees it whole on its card.
    """
    with app.db.reading() as tx:
        effect = app.shown_effect(tx, own_effect(tx, reader, effect_id))
        return object_to_json(effect) | {
            "decisions": [
                object_to_json(
                    replace(decided, request={**decided.request, "arguments": effect.arguments})
                )
                for decided in decisions.list_for_effect(tx, effect.effect_id)
            ],
            "approvals": to_json(tuple(approvals.list_for_effect(tx, effect.effect_id))),
            "evidence": to_json(tuple(effects.list_evidence(tx, effect.effect_id))),
        }


@router.post("/{effect_id}/settle")
def settle_effect(app: App, operator: Operator, effect_id: str, body: SettleBody) -> JsonObject:
    """Settle a parked effect as done, absent or abandoned; its run goes on."""
    with app.db.reading() as tx:
        effect = own_effect(tx, operator, effect_id)
    settled = reconcile.settle(
        app.db,
        app.dispatch,
        effect.effect_id,
        by=operator,
        answer=body.answer,
        reason=body.reason,
        external_id=body.external_id,
    )
    with app.db.reading() as tx:
        return object_to_json(app.shown_effect(tx, settled))


def own_effect(tx: Tx, reader: Principal, effect_id: str) -> Effect:
    """Return an effect of the reader's tenant; raises `NotFoundError`."""
    effect = effects.find(tx, EffectId(effect_id))
    if effect is None or effect.tenant != reader.tenant:
        raise NotFoundError(f"there is no effect `{effect_id}`")
    return effect
