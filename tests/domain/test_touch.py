from __future__ import annotations

from interlock.domain.ids import EffectId, RunId
from interlock.domain.principal import DEFAULT_TENANT
from interlock.domain.touch import Touch


def test_touch_of_a_record_is_a_value() -> None:
    """Two accesses that agree in everything are the same touch, so sets of them hold it once."""
    one, other = (
        Touch(
            tenant=DEFAULT_TENANT,
            run_id=RunId("r"),
            effect_id=EffectId("e"),
            system="desk",
            type="issue",
            external_id="7",
            mode="read",
            at_us=1,
        )
        for _ in range(2)
    )

    assert {one} == {one, other}
