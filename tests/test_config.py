from __future__ import annotations

from pathlib import Path

import pytest

from interlock.config import Config, ModelSettings, load
from interlock.domain.errors import ConfigError


def _problems(folder: Path, environ: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(folder, environ)
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def test_defaults_are_safe(tmp_path: Path) -> None:
    """Without any setting: loopback, development, SQLite in the data folder."""
    config = load(tmp_path, {})

    assert Config(data_dir=tmp_path / ".interlock") == config
    assert f"sqlite:///{tmp_path}/.interlock/interlock.db" == config.store_url


def test_credentials_in_variables_are_no_settings(tmp_path: Path) -> None:
    """A key that is not known would be refused, and its value perhaps repeated."""
    config = load(tmp_path, {"INTERLOCK_SECRET_DESK__DEV__BOT": "canary"})

    assert Config(data_dir=tmp_path / ".interlock") == config


def test_a_vault_has_an_address_and_a_token(tmp_path: Path) -> None:
    """The file of the token starts at the folder of the settings, like every path."""
    found = _problems(tmp_path, {"INTERLOCK_SECRETS__SOURCE": "vault"})
    (tmp_path / "interlock.toml").write_text(
        '[secrets]\nsource = "vault"\naddress = "https://vault:8200"\ntoken_file = "token"\n'
    )

    assert 2 == len(found)
    assert "`secrets.address` is missing" in found[0]
    assert "`secrets.token_file` is missing" in found[1]
    assert tmp_path / "token" == load(tmp_path, {}).secrets.token_file


def test_an_unknown_key_about_secrets_is_named(tmp_path: Path) -> None:
    """With the one that was perhaps meant."""
    (found,) = _problems(tmp_path, {"INTERLOCK_SECRETS__ADRESS": "https://vault:8200"})

    assert "unknown key `secrets.adress`" in found
    assert "did you mean `address`?" in found


def test_environment_wins_over_file(tmp_path: Path) -> None:
    """A variable replaces what the file says, key by key, also inside a model."""
    (tmp_path / "interlock.toml").write_text(
        'port = 1\nhost = "::1"\n[models.default]\nprovider = "a:b"\naccepts = ["pii"]\n'
    )

    config = load(
        tmp_path, {"INTERLOCK_PORT": "0", "INTERLOCK_MODELS__DEFAULT__PROVIDER": "c:d", "HOME": "/"}
    )

    model = ModelSettings(name="default", provider="c:d", accepts=frozenset({"pii"}))
    assert (0, "::1", {"default": model}) == (config.port, config.host, dict(config.models))


def test_named_file_is_read_and_paths_are_relative_to_it(tmp_path: Path) -> None:
    """INTERLOCK_CONFIG names a file, and relative paths in it start at its folder."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "site.toml").write_text('data_dir = "../state"')

    config = load(tmp_path, {"INTERLOCK_CONFIG": "etc/site.toml"})

    assert (tmp_path / "state").resolve() == config.data_dir.resolve()


def test_all_problems_are_reported_together(tmp_path: Path) -> None:
    """Each problem names file and line or variable, and the nearest known key."""
    (tmp_path / "interlock.toml").write_text(
        'port = 99999\nhots = "x"\n[models.default]\nprovder = "a:b"\n[models.b]\nprovider = "x"\n'
    )

    problems = _problems(tmp_path, {"INTERLOCK_POTR": "1", "INTERLOCK_ENVIRONMENT": "test"})

    assert {
        "interlock.toml:1: `port` should be less than or equal to 65535, got `99999`",
        "interlock.toml:2: unknown key `hots` (did you mean `host`?)",
        "interlock.toml:3: `models.default.provider` is missing",
        "interlock.toml:4: unknown key `models.default.provder` (did you mean `provider`?)",
        (
            "interlock.toml:6: `models.b.provider` must be <provider>:<model>, as "
            "openai-chat:gpt-5-mini, got `x`"
        ),
        "INTERLOCK_POTR: unknown key `potr` (did you mean `port`?)",
        "INTERLOCK_ENVIRONMENT: `environment` should be 'dev', 'stage' or 'prod', got `test`",
    } == set(problems)


def test_secrets_are_never_repeated(tmp_path: Path) -> None:
    """A key in the place of its reference, and a URL with a password, stay out of the message."""
    (tmp_path / "interlock.toml").write_text(
        '[models.default]\nprovider = "a:b"\napi_key = "sk-canary"\n'
    )

    problems = _problems(tmp_path, {"INTERLOCK_DATABASE_URL": "mysql://me:canary@db/x"})

    assert 2 == len(problems)
    assert not [problem for problem in problems if "canary" in problem]
    url = "postgres://me:canary@db/x"
    (tmp_path / "interlock.toml").unlink()
    config = load(tmp_path, {"INTERLOCK_DATABASE_URL": url})
    assert "postgresql+psycopg://me:canary@db/x" == config.store_url
    assert "canary" not in repr(config)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("port = \n", "interlock.toml:1: is not TOML: invalid value"),
        (
            'host = "0.0.0.0"',
            (
                "interlock.toml:1: `host` `0.0.0.0` is reached from other machines, and there "
                "is no TLS here (listen on 127.0.0.1, or set is_insecure behind a proxy that "
                "adds TLS)"
            ),
        ),
        (
            '[models.a]\nprovider = "b:c"\ninput_price_micro_usd_per_mtok = 1',
            (
                "interlock.toml:1: the model `a` has only one of its two prices "
                "(declare both, or none)"
            ),
        ),
    ],
)
def test_unusable_settings_are_refused(tmp_path: Path, text: str, expected: str) -> None:
    """Broken TOML, an open door without TLS and half a price are named with their line."""
    (tmp_path / "interlock.toml").write_text(text)

    assert [expected] == _problems(tmp_path, {})


def test_named_file_must_exist(tmp_path: Path) -> None:
    """A settings file that was asked for by name is not optional."""
    expected = ["site.toml: the settings file does not exist"]

    assert expected == _problems(tmp_path, {"INTERLOCK_CONFIG": "site.toml"})


@pytest.mark.parametrize(
    ("config", "url"),
    [
        (Config(), "http://127.0.0.1:8425"),
        (Config(host="::1", port=80), "http://[::1]:80"),
        (Config(public_url="https://interlock.example/"), "https://interlock.example"),
    ],
    ids=["default", "ipv6", "public"],
)
def test_links_lead_to_the_server(config: Config, url: str) -> None:
    """To the public address if there is one, else to where it listens."""
    assert url == config.url()
