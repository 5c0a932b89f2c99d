from __future__ import annotations

import pytest

from interlock.domain.canonical import Json
from interlock.domain.decision import Facts
from interlock.domain.errors import InputError
from interlock.domain.label import Labels
from interlock.policy.context import FACT_TYPES, facts_context, parse_derived


@pytest.mark.parametrize(
    ("text", "value", "derived"),
    [
        ("length(/v)", "späť", 4),
        ("length(/v)", [1, 2], 2),
        ("domain(/v)", "Ann.B+x@Mail.Example.COM", "mail.example.com"),
        ("domains(/v)", ["a@y.example", "b@x.example", "c@y.example"], ["x.example", "y.example"]),
        ("host(/v)", "https://Api.Example.com:8443/a?b=c#d", "api.example.com"),
        ("host(/v)", "HTTP://h", "h"),
        ("hundredths(/v)", "1000.01", 100_001),
        ("hundredths(/v)", "12.5", 1250),
        ("hundredths(/v)", "0012", 1200),
        ("hundredths(/v)", "-0.05", -5),
    ],
)
def test_derived_value_of_a_plain_argument(text: str, value: Json, derived: Json) -> None:
    """Each function computes what its name says."""
    assert derived == parse_derived(text).of({"v": value})


@pytest.mark.parametrize("value", [None, "absent"])
def test_absent_argument_has_no_derived_value(value: Json) -> None:
    """Absent and null are the same, as for arguments."""
    arguments: dict[str, Json] = {} if value == "absent" else {"v": value}

    assert None is parse_derived("domain(/v)").of(arguments)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("length(/v)", 3),
        ("domain(/v)", 3),
        ("domain(/v)", "no address"),
        ("domain(/v)", "a@ok.example,b@evil.example"),
        ("domain(/v)", '"a@evil.example"@ok.example'),
        ("domain(/v)", "Ann <a@ok.example>"),
        ("domain(/v)", "a@ok.example\r\nBcc: b@evil.example"),
        ("domain(/v)", "a@ok.example "),
        ("domain(/v)", "a@-ok.example"),
        ("domain(/v)", "a@ok..example"),
        ("domain(/v)", "a@ok.example."),
        ("domain(/v)", "a@\u043ek.example"),
        ("domains(/v)", "a@ok.example"),
        ("domains(/v)", ["a@ok.example", None]),
        ("host(/v)", None.__class__.__name__),
        ("host(/v)", 7),
        ("host(/v)", "ftp://h/"),
        ("host(/v)", "//h/"),
        ("host(/v)", "https://ok.example@evil.example/"),
        ("host(/v)", "https://ok.example\\@evil.example/"),
        ("host(/v)", "https://ok.example\t/"),
        ("host(/v)", "https://[::1]/"),
        ("host(/v)", "https:///path"),
        ("host(/v)", "https://a..b/"),
        ("host(/v)", "https://ok.example/\n"),
        ("hundredths(/v)", 12),
        ("hundredths(/v)", ""),
        ("hundredths(/v)", "12."),
        ("hundredths(/v)", ".5"),
        ("hundredths(/v)", "12.345"),
        ("hundredths(/v)", "1e9"),
        ("hundredths(/v)", "1,000"),
        ("hundredths(/v)", "+12"),
        ("hundredths(/v)", "12\n"),
        ("hundredths(/v)", "\u0661"),
        ("hundredths(/v)", "12345678901234"),
    ],
)
def test_malformed_argument_is_an_error_and_so_a_deny(text: str, value: Json) -> None:
    """A guardrail cannot be passed by what two parsers read differently."""
    with pytest.raises(InputError, match="so policy cannot judge it"):
        parse_derived(text).of({"v": value})


@pytest.mark.parametrize("text", ["nope(/v)", "length", "length()", "length(v)", "length(/a)(/b)"])
def test_unknown_derived_value_is_refused_with_those_that_exist(text: str) -> None:
    """The message says what could have been written."""
    with pytest.raises(InputError, match="known are `length"):
        parse_derived(text)


def test_context_has_exactly_the_declared_facts() -> None:
    """Schema and context cannot drift apart."""
    facts = Facts(
        user="ann",
        labels=Labels(names=frozenset({"pii"}), tenants=frozenset({"acme"}), is_untrusted=True),
        done=frozenset({"y", "x"}),
    )

    context = facts_context(facts, lifted=frozenset({"leads"}))

    assert set(FACT_TYPES) == set(context)
    assert {"name": "ann"} == context["user"]
    assert [{"__entity": {"type": "Tenant", "id": "acme"}}] == context["tenants"]


def test_run_without_user_has_no_user_fact() -> None:
    """A policy has to ask `context has user`."""
    assert "user" not in facts_context(Facts(), lifted=frozenset())
