"""What a model request costs, in whole micro-USD, with the version of the price that was used."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

import genai_prices
from genai_prices.types import Usage

_TOKENS_PER_PRICE = 1_000_000
_MICRO_PER_USD = 1_000_000

# Names that agents' frameworks give to providers, where the price list has another one.
_PROVIDERS = {
    "bedrock": "aws",
    "gateway/bedrock": "aws",
    "google-cloud": "google",
    "google-gla": "google",
    "google-vertex": "google",
    "grok": "x-ai",
    "openai-chat": "openai",
    "openai-responses": "openai",
    "xai": "x-ai",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """A declared price: micro-USD per million tokens of input and of output."""

    input_micro_usd_per_mtok: int
    output_micro_usd_per_mtok: int

    @property
    def version(self) -> str:
        """Return the text that names this price in rows."""
        return f"declared/{self.input_micro_usd_per_mtok}/{self.output_micro_usd_per_mtok}"


def price(
    provider: str,
    model: str,
    *,
    input_tokens: int,
    output_tokens: int,
    declared: Price | None,
) -> tuple[int, str] | None:
    """Return cost in micro-USD, rounded up, and price version; None if there is no price.

    A declared price comes first, then the list of `genai-prices` as of now. No price means that
    the caller denies the request: an unknown price is never taken for 0.
    """
    if declared is not None:
        total = (
            input_tokens * declared.input_micro_usd_per_mtok
            + output_tokens * declared.output_micro_usd_per_mtok
        )
        return -(-total // _TOKENS_PER_PRICE), declared.version
    listed = _listed(
        provider, model, usage=Usage(input_tokens=input_tokens, output_tokens=output_tokens)
    )
    if listed is None:
        return None
    micro = (listed * _MICRO_PER_USD).to_integral_value(rounding=ROUND_CEILING)
    return int(micro), f"genai-prices/{genai_prices.__version__}"


def _listed(provider: str, model: str, *, usage: Usage) -> Decimal | None:
    try:
        found = genai_prices.calc_price(
            usage, model, provider_id=_PROVIDERS.get(provider, provider)
        )
    except LookupError:
        return None
    prices = found.model_price
    # The list prices embeddings by input alone and images by piece: such a model has no price
    # for a chat, and the sum of what is listed would be too low.
    if getattr(prices, "input_mtok", None) is None or getattr(prices, "output_mtok", None) is None:
        return None
    return found.total_price
