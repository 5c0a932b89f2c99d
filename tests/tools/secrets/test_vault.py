"""Secrets in Vault: read shortly before use, replaced while in use, and none when it is away.

No Vault is at hand here, so its side is a server that speaks its protocol over real HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from interlock.domain.errors import InputError, UnavailableError
from interlock.tools.secrets.vault import KEPT_S, MISSED_S, VaultPlace, VaultSecrets
from tests.tools.secrets.vault_server import VaultServer, vault_server

REFERENCE = "secret://servicedesk/dev/agent"
PATH = "interlock/servicedesk/dev/agent"
OVERLAP_S = 600


@dataclass(kw_only=True)
class Setting:
    """A Vault, our reader of it, and the reader's clock."""

    vault: VaultServer
    secrets: VaultSecrets
    token_file: Path
    now_s: float = 1000.0

    def passes(self, seconds: float) -> None:
        """Let both clocks go on."""
        self.now_s += seconds
        self.vault.passes(seconds)

    def put(self, value: str) -> None:
        """Write a new version."""
        self.vault.put(PATH, {"value": value})


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    """A Vault with one secret."""
    token_file = tmp_path / "token"
    token_file.write_text("t-1\n")
    with vault_server() as vault:
        place = VaultPlace(
            address=vault.url, token_file=token_file, namespace="it", overlap_s=OVERLAP_S
        )
        with closing(VaultSecrets(place, now_s=lambda: made.now_s)) as secrets:
            made = Setting(vault=vault, secrets=secrets, token_file=token_file)
            made.put("first")
            yield made


def test_a_secret_is_the_field_value_at_its_path(setting: Setting) -> None:
    """Asked for with our token, in our namespace."""
    assert "first" == setting.secrets.resolve(REFERENCE)
    [(target, headers)] = setting.vault.heard
    assert f"/v1/secret/data/{PATH}" == target
    assert ("t-1", "it") == (headers["x-vault-token"], headers["x-vault-namespace"])


def test_a_replaced_secret_is_sent_within_seconds(setting: Setting) -> None:
    """And until then Vault is not asked for each call."""
    before = setting.secrets.resolve(REFERENCE)
    setting.put("second")
    kept = setting.secrets.resolve(REFERENCE)
    setting.passes(KEPT_S)

    assert ("first", "first", "second") == (before, kept, setting.secrets.resolve(REFERENCE))
    assert 2 == len(setting.vault.heard)


def test_the_version_before_counts_for_the_overlap(setting: Setting) -> None:
    """Counted from when the new one was written, by Vault's clock."""
    alone = setting.secrets.accepted(REFERENCE)
    setting.passes(3600)
    setting.put("second")
    setting.passes(OVERLAP_S - 1)
    both = setting.secrets.accepted(REFERENCE)
    setting.passes(1)

    assert ("first",) == alone
    assert ("second", "first") == both
    assert ("second",) == setting.secrets.accepted(REFERENCE)


def test_vault_is_not_asked_for_every_signature_that_is_checked(setting: Setting) -> None:
    """Anybody may send a delivery; neither the version before nor a failure is asked for again."""
    setting.put("second")
    for _ in range(5):
        assert ("second", "first") == setting.secrets.accepted(REFERENCE)
    asked = len(setting.vault.heard)
    setting.passes(KEPT_S)
    setting.vault.answer = (503, b"sealed")
    for _ in range(5):
        with pytest.raises(UnavailableError, match="503"):
            setting.secrets.accepted(REFERENCE)

    assert (2, 3) == (asked, len(setting.vault.heard))


@pytest.mark.parametrize("value", [None, True, 7, {"a": "b"}, ["x"]])
def test_a_field_that_is_no_text_is_no_secret(setting: Setting, value: object) -> None:
    """`None` as a signing secret would be one that anybody guesses."""
    setting.vault.put(PATH, {"value": value})

    with pytest.raises(UnavailableError, match="has no field `value`"):
        setting.secrets.resolve(REFERENCE)


def test_a_token_that_was_renewed_is_read_anew(setting: Setting) -> None:
    """Whoever keeps it fresh writes it to the file."""
    setting.vault.token = "t-2"
    with pytest.raises(UnavailableError, match="does not let our token read"):
        setting.secrets.resolve(REFERENCE)
    setting.token_file.write_text("t-2")
    setting.passes(MISSED_S)

    assert "first" == setting.secrets.resolve(REFERENCE)


def test_a_secret_that_was_taken_away_is_not_kept(setting: Setting) -> None:
    """What is not stored is said with the path where it belongs."""
    setting.secrets.resolve(REFERENCE)
    setting.vault.versions.clear()
    setting.passes(KEPT_S)

    with pytest.raises(UnavailableError, match=f"write the field `value` of `{PATH}`"):
        setting.secrets.resolve(REFERENCE)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((503, b"sealed"), "Vault answered 503"),
        ((302, b""), "Vault answered 302"),
        ((200, b"{"), "has no field `value`"),
        ((200, b'{"data":{"data":null,"metadata":{}}}'), "has no field `value`"),
        ((200, b"[1]"), "has no field `value`"),
        ((200, b"x" * 200_000), "answered with too much"),
    ],
    ids=["sealed", "redirect", "no JSON", "deleted", "no object", "endless"],
)
def test_an_answer_that_is_no_secret_gives_none(
    setting: Setting, answer: tuple[int, bytes], why: str
) -> None:
    """A call that has no credentials is not sent."""
    setting.vault.answer = answer

    with pytest.raises(UnavailableError, match=why):
        setting.secrets.resolve(REFERENCE)


def test_a_value_that_is_no_credential_is_refused_unseen(setting: Setting) -> None:
    """Several lines could become several headers; they are not repeated."""
    setting.put("canary\nX-Other: 1")

    with pytest.raises(UnavailableError, match="one line") as told:
        setting.secrets.resolve(REFERENCE)

    assert "canary" not in str(told.value)


def test_a_token_that_cannot_be_read_is_said_with_its_file(setting: Setting) -> None:
    """Nothing is asked without it."""
    setting.token_file.unlink()

    with pytest.raises(UnavailableError, match="token of Vault cannot be read"):
        setting.secrets.resolve(REFERENCE)
    assert [] == setting.vault.heard


def test_a_vault_that_is_away_is_unavailable(tmp_path: Path) -> None:
    """With its address, since that is what somebody looks at first."""
    (tmp_path / "token").write_text("t-1")
    with vault_server() as vault:
        place = VaultPlace(address=vault.url, token_file=tmp_path / "token")
    said = pytest.raises(UnavailableError, match=f"Vault at {vault.url} does not answer")
    with closing(VaultSecrets(place)) as secrets, said:
        secrets.resolve(REFERENCE)


def test_a_vault_without_tls_is_on_this_machine(tmp_path: Path) -> None:
    """Its answers are credentials."""
    place = VaultPlace(address="http://vault.example:8200", token_file=tmp_path / "token")

    with pytest.raises(InputError, match="needs https"):
        VaultSecrets(place)
