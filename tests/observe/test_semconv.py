from __future__ import annotations

from interlock.observe import semconv


def test_every_attribute_name_of_the_module_is_in_the_table() -> None:
    """A constant that names an attribute cannot be forgotten in the table."""
    words = {"invoke_workflow", "invoke_agent", "chat", "execute_tool", "tools/call"}
    versions = {semconv.GEN_AI, semconv.OTEL, semconv.OWN}

    named = {
        value
        for name, value in vars(semconv).items()
        if name.isupper() and isinstance(value, str) and value not in words | versions
    }

    assert named == set(semconv.ATTRIBUTES)


def test_names_that_are_not_open_telemetrys_carry_our_prefix() -> None:
    """What has no standard is `interlock.*`, and nothing else is."""
    ours = {key for key, source in semconv.ATTRIBUTES.items() if source == semconv.OWN}

    assert ours == {key for key in semconv.ATTRIBUTES if key.startswith("interlock.")}
