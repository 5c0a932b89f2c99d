"""What one session may ask of models: each request is a step of its run, within its budget.

Whoever owns the run holds what requests under way may cost at most, so that requests in parallel
cannot spend more than there is.
"""

from __future__ import annotations

from typing import Self

from interlock.calls.model import ModelRequest, request_model
from interlock.domain.agent import ModelBudget
from interlock.domain.canonical import Json
from interlock.domain.errors import BudgetSpentError
from interlock.domain.ids import RunId, StepName
from interlock.runtime.outside.desk import ModelAsked
from interlock.runtime.steps import Walk
from interlock.store import journal, spans
from interlock.store.tx import Tx

_ASKED = "session.model"


class Purse:
    """The budget of a session while its run is owned here."""

    def __init__(
        self, walk: Walk, budget: ModelBudget, *, requests: int, spent: int, parent_span: str
    ) -> None:
        self._walk = walk
        self._budget = budget
        self._requests = requests
        self._spent = spent
        self._held = 0
        self._parent_span = parent_span

    @classmethod
    async def of(cls, walk: Walk, *, parent_span: str) -> Self:
        """Return the purse of a session, less what it has spent so far."""
        run_id = walk.run.run_id
        (seat,) = walk.run.request.seats
        agent = walk.release.agents.get(seat.agent)
        requests, spent = await walk.durable.read(lambda tx: _so_far(tx, run_id))
        budget = ModelBudget(requests=0) if agent is None else agent.budget
        return cls(walk, budget, requests=requests, spent=spent, parent_span=parent_span)

    async def ask(self, asked: ModelAsked) -> Json:
        """Make a request and return its recorded answer.

        Raises `BudgetSpentError` if there is not enough left for all that it may cost.
        """
        durable, run_id = self._walk.durable, self._walk.run.run_id
        held = self._hold(asked)
        try:
            durable.note(StepName(f"model/{asked.key}#asked"), lambda _: asked.model, kind=_ASKED)
            request = ModelRequest(
                name=StepName(f"model/{asked.key}"),
                model=asked.model,
                provider=asked.provider,
                seats=self._walk.run.request.deciding,
                parent_span=self._parent_span,
                input_tokens=asked.input_tokens,
                output_tokens=asked.output_tokens,
            )
            answer = await request_model(self._walk.services.road, durable, request, asked.send)
            # A cancel that came meanwhile does not take back what is recorded.
            with durable.in_flight():
                spent = await durable.read(lambda tx: spans.model_cost_of(tx, run_id))
            # A request beside this one may have read later and been told earlier.
            self._spent = max(self._spent, spent)
        finally:
            self._held -= held
        return answer

    def _hold(self, asked: ModelAsked) -> int:
        most = self._budget
        if self._requests >= most.requests:
            raise BudgetSpentError(
                f"this session has made its {most.requests} model requests; open another, or raise"
                " `budget.requests` of the agent"
            )
        held = 0 if most.cost_micro_usd is None else self._most_of(asked)
        if most.cost_micro_usd is not None:
            left = most.cost_micro_usd - self._spent - self._held
            if held > left:
                raise BudgetSpentError(
                    f"the request may cost {held} micro-USD, and {max(left, 0)} of the session's"
                    f" {most.cost_micro_usd} are left; ask for less, or open another session"
                )
        self._requests += 1
        self._held += held
        return held

    def _most_of(self, asked: ModelAsked) -> int:
        if asked.output_tokens is None:
            raise BudgetSpentError(
                "the budget of this session is a sum, so name the most tokens of the answer"
                " (`max_completion_tokens` or `max_tokens`)"
            )
        price = self._walk.services.road.price(asked.model, asked.input_tokens, asked.output_tokens)
        # Without a price the road refuses it, and it costs nothing.
        return 0 if price is None else price.micro_usd


def _so_far(tx: Tx, run_id: RunId) -> tuple[int, int]:
    return len(journal.load(tx, run_id, kinds=(_ASKED,))), spans.model_cost_of(tx, run_id)
