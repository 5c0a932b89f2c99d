from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from interlock.domain.label import Labels

_NAMES = st.frozensets(st.sampled_from(["pii", "secret", "undeclared"]))
LABELS = st.builds(Labels, names=_NAMES, tenants=_NAMES, is_untrusted=st.booleans())


@given(LABELS, LABELS)
def test_join_never_lowers(one: Labels, other: Labels) -> None:
    """A join holds everything that either side holds, and nothing else."""
    joined = one.join(other)

    assert one.names | other.names == joined.names
    assert one.tenants | other.tenants == joined.tenants
    assert (one.is_untrusted or other.is_untrusted) == joined.is_untrusted


@given(LABELS, LABELS, LABELS)
def test_join_does_not_depend_on_order(one: Labels, two: Labels, three: Labels) -> None:
    """Reads in any order, repeated or grouped in any way, raise to the same labels."""
    assert one.join(two) == two.join(one)
    assert one.join(two).join(three) == one.join(two.join(three))
    assert one == one.join(one) == one.join(Labels())
