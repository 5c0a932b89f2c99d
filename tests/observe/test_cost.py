from __future__ import annotations

import pytest

from interlock.observe.cost import Price, price

DECLARED = Price(input_micro_usd_per_mtok=150_000, output_micro_usd_per_mtok=600_000)


def test_declared_price_is_rounded_up() -> None:
    """A fraction of a micro-USD is never lost."""
    found = price("any", "any", input_tokens=7, output_tokens=1, declared=DECLARED)

    assert (2, "declared/150000/600000") == found


def test_declared_price_comes_before_the_list() -> None:
    """What the installation pays counts, not what the list says."""
    found = price(
        "openai", "gpt-4o-mini", input_tokens=0, output_tokens=1_000_000, declared=DECLARED
    )

    assert (600_000, DECLARED.version) == found


@pytest.mark.parametrize("provider", ["openai", "openai-chat", "openai-responses"])
def test_listed_price_is_found_under_the_frameworks_names(provider: str) -> None:
    """A known model has the price of the list, with the list's version."""
    found = price(
        provider,
        "gpt-4o-mini",
        input_tokens=1_000_000,
        output_tokens=0,
        declared=None,
    )

    assert found is not None
    assert 150_000 == found[0]
    assert found[1].startswith("genai-prices/")


@pytest.mark.parametrize(
    ("provider", "model"),
    [("openai", "no-such-model"), ("no-such-provider", "x"), ("openai", "text-embedding-3-small")],
)
def test_unknown_price_is_none_and_never_zero(provider: str, model: str) -> None:
    """A model without a price for input and output has none, so that the request is denied."""
    assert None is price(provider, model, input_tokens=0, output_tokens=0, declared=None)
