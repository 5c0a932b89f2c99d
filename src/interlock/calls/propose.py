"""Station 1, propose: pin tool and environment, make the arguments canonical, derive the keys."""

from __future__ import annotations

import hashlib
import hmac
import unicodedata
from collections.abc import Mapping

from interlock.calls.road import WITHDRAWN, Call, Live, Proposal, Refusal, Road
from interlock.domain.canonical import Json, JsonObject, canonical, canonical_text, digest
from interlock.domain.effect import Effect, EffectState
from interlock.domain.errors import ContractError, InputError, JsonError
from interlock.domain.ids import effect_id_of, idempotency_key_of
from interlock.domain.pointer import are_nested, fill
from interlock.domain.release import pin_of
from interlock.domain.run import Run
from interlock.domain.tool import BusinessKey, EffectClass, ToolVersion
from interlock.observe import bodies
from interlock.store import effects
from interlock.store.tx import Tx
from interlock.tools.contract import Contract


def propose(tx: Tx, road: Road, live: Live, run: Run, proposal: Proposal) -> Call:
    """Return the call of this step: the stored row if there is one, else a new one in memory.

    After a crash the model may word the same step differently; the row's arguments count, never
    the second wording. Nothing is written here.
    """
    stored = effects.find(tx, effect_id_of(run.run_id, proposal.step_name))
    if stored is not None:
        return _resumed(live, run, proposal, stored)
    return new_call(road, live, run, proposal, now_us=tx.now_us)


def _resumed(live: Live, run: Run, proposal: Proposal, effect: Effect) -> Call:
    tool = live.release.tool_version(effect.tool, effect.tool_version)
    binding = None
    if tool is not None:
        binding = live.release.bind(tool, effect.environment, run.request.workflow)
    refusal = WITHDRAWN if proposal.is_withdrawn else None
    return Call(
        proposal=proposal,
        effect=effect,
        tool=tool,
        binding=binding,
        refusal=_unknown(proposal) if binding is None else refusal,
        is_stored=True,
        heard=proposal.heard,
    )


def new_call(
    road: Road,
    live: Live,
    run: Run,
    proposal: Proposal,
    *,
    now_us: int,
    unknown: frozenset[str] = frozenset(),
) -> Call:
    """Return the call of a proposal that has no row yet; nothing is written.

    `unknown` are pointers to arguments that are not known yet: such a call is only looked at.
    """
    environment = run.request.environment
    tool = live.release.live(proposal.tool, environment)
    if proposal.version is not None:
        tool = live.release.tool_version(proposal.tool, proposal.version)
    binding = None
    if tool is not None:
        binding = live.release.bind(tool, environment, run.request.workflow)
    arguments, refusal = _checked(tool if binding else None, proposal, unknown)
    if proposal.is_withdrawn and refusal is None:
        refusal = WITHDRAWN
    effect_id = effect_id_of(run.run_id, proposal.step_name)
    key = tool.business_key if tool and not refusal else None
    if key is not None and _depends_on(key, unknown):
        key = None
    key_text, shown_key = _key_texts(road, tool, key, arguments)
    effect = Effect(
        effect_id=effect_id,
        run_id=run.run_id,
        step_name=proposal.step_name,
        tenant=run.request.tenant,
        environment=environment,
        workflow=run.request.workflow,
        seats=proposal.seats,
        tool=proposal.tool,
        tool_version=0 if tool is None else tool.version,
        pin="" if tool is None else pin_of(tool),
        effect_class=EffectClass.BLIND if tool is None else tool.effect.effect_class,
        is_write=True if tool is None else tool.is_write,
        arguments=arguments,
        args_digest=digest(arguments),
        state=EffectState.PROPOSED,
        epoch=run.epoch,
        attempt=0,
        created_us=now_us,
        idem_key=idempotency_key_of(effect_id),
        key_text=shown_key,
        key_hash=None if key_text is None else _key_hash(road, run, proposal, key_text),
        compensates=proposal.compensates,
    )
    return Call(proposal=proposal, effect=effect, tool=tool, binding=binding, refusal=refusal)


def _depends_on(key: BusinessKey, unknown: frozenset[str]) -> bool:
    pointers = (part.at.partition(":")[2].removeprefix("/") for part in key.parts)
    return any(are_nested(f"/{pointer}", place) for pointer in pointers for place in unknown)


def _checked(
    tool: ToolVersion | None, proposal: Proposal, unknown: frozenset[str]
) -> tuple[JsonObject, Refusal | None]:
    """Return the arguments that may be stored, and why they are refused if they are."""
    arguments = proposal.arguments
    if not isinstance(arguments, dict):
        return {}, Refusal(code="contract.violated", message="the arguments are not an object")
    try:
        canonical(arguments)
    except JsonError as error:
        return {}, Refusal(code=error.code, message=error.message)
    if tool is None:
        return arguments, _unknown(proposal)
    try:
        contract = Contract.of(tool.input_schema)
        if unknown:
            contract.check_known(arguments, what="arguments", unknown=unknown)
        else:
            contract.check(arguments, what="arguments")
    except ContractError as error:
        return arguments, Refusal(code=error.code, message=error.message)
    return arguments, None


def _unknown(proposal: Proposal) -> Refusal:
    # A tool that does not exist here and one that this seat may not see read the same.
    return Refusal(code="tool.unknown", message=f"there is no tool `{proposal.tool}` for this seat")


def _key_texts(
    road: Road, tool: ToolVersion | None, key: BusinessKey | None, arguments: JsonObject
) -> tuple[str | None, str | None]:
    """Return a business key as it is hashed, and as rows may show it: redacted by contract."""
    if tool is None or key is None:
        return None, None
    shown = bodies.redacted_arguments(arguments, tool, key=road.key_secret)
    return business_key_text(key, arguments), business_key_text(key, shown)


def _key_hash(road: Road, run: Run, proposal: Proposal, key_text: str) -> str:
    text = canonical_text([run.request.tenant, proposal.tool, key_text])
    return hmac.new(road.key_secret, text.encode(), hashlib.sha256).hexdigest()[:32]


def business_key_text(key: BusinessKey, arguments: Mapping[str, Json]) -> str | None:
    """Render a business key, parts folded and joined by ` | `; None if one is absent.

    `words` folds case, drops punctuation and repeated spaces, so that "VPN down!" and "vpn  down"
    are the same thing to a person.
    """
    parts: list[str] = []
    for part in key.parts:
        try:
            value = fill(part.at, {"in": dict(arguments)})
        except InputError:
            return None
        text = value if isinstance(value, str) else canonical_text(value)
        parts.append(_fold(text, part.fold))
    return " | ".join(parts)


def _fold(text: str, fold: str) -> str:
    if fold == "exact":
        return text
    folded = unicodedata.normalize("NFKC", text).casefold()
    if fold == "words":
        folded = "".join(char if char.isalnum() else " " for char in folded)
    return " ".join(folded.split())
