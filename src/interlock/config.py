"""Settings of one installation: read from TOML, then from the environment, validated once."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, cast
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from interlock.domain.errors import ConfigError, Problem, did_you_mean
from interlock.domain.tool import Environment

FILE_NAME = "interlock.toml"
PREFIX = "INTERLOCK_"
NO_SETTINGS = "INTERLOCK_SECRET_"
"""Variables that hold credentials, and so are no settings, begin with this."""
CONFIG_VARIABLE = "INTERLOCK_CONFIG"
"""Names another settings file than `interlock.toml` in the folder."""

_STRICT = ConfigDict(extra="forbid")
_SECRET = re.compile(r"secret://[a-z0-9][a-z0-9_.-]*/(dev|stage|prod)/[a-z0-9][a-z0-9_.-]*")
_DATABASES = {"postgres", "postgresql", "postgresql+psycopg", "sqlite"}
_CONFIDENTIAL = {"api_key", "database_url"}

Values = dict[str, Any]
Place = tuple[str, ...]
Places = dict[Place, tuple[str, int | None]]
"""Which file and line, or which variable, set a key."""
Misfit = tuple[Place, str, str | None]
"""The key, what is wrong with it, and how to mend it."""


def _model_string(text: str) -> str:
    if not all(text.partition(":")):
        raise ValueError("must be <provider>:<model>, as openai-chat:gpt-5-mini")
    return text


def _http_address(text: str) -> str:
    if urlsplit(text).scheme not in {"http", "https"} or not urlsplit(text).hostname:
        raise ValueError("must be an http or https address")
    return text


def _secret_reference(text: str) -> str:
    if not _SECRET.fullmatch(text):
        raise ValueError("must be a reference secret://<system>/<environment>/<name>")
    return text


def _database_url(text: str) -> str:
    if urlsplit(text).scheme not in _DATABASES:
        raise ValueError("must be like postgresql://user@host/name")
    return re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", text)


Price = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """One model that agents may name.

    `provider` is a pydantic-ai model string (`openai-chat:gpt-5-mini`). `base_url` replaces the
    provider's address (a local server, a proxy); default none. `api_key` is a reference
    `secret://<system>/<environment>/<name>`, never the key; default none. Prices are micro-USD per
    million tokens; without them the provider's public price counts, and a model without any price
    is refused. `accepts` are the labels that may be sent to it; default none. `is_external` says
    that it is outside our trust boundary; default true. `max_output_tokens` is sent with each
    request of an agent: the most that an answer may have, from 1; default none, and then budgets of
    money or tokens refuse the request.
    """

    __pydantic_config__ = _STRICT

    name: str
    provider: Annotated[str, AfterValidator(_model_string)]
    base_url: Annotated[str, AfterValidator(_http_address)] | None = None
    api_key: Annotated[str, AfterValidator(_secret_reference)] | None = None
    input_price_micro_usd_per_mtok: Price | None = None
    output_price_micro_usd_per_mtok: Price | None = None
    accepts: frozenset[str] = frozenset()
    is_external: bool = True
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretSettings:
    """Where credentials are kept; default in the database.

    `source`: `database`, `environment` or `vault`. The others are for `vault`: `address`;
    `token_file`, which whoever keeps the token fresh writes; `mount`, the KV engine, default
    `secret`; `prefix` of the path, default `interlock`; `namespace`, default none; `overlap_s`,
    seconds for which the version before counts where others sign, default 3600, 0 to 2592000.
    """

    __pydantic_config__ = _STRICT

    source: Literal["database", "environment", "vault"] = "database"
    address: Annotated[str, AfterValidator(_http_address)] | None = None
    token_file: Path | None = None
    mount: str = "secret"
    prefix: str = "interlock"
    namespace: str | None = None
    overlap_s: Annotated[int, Field(ge=0, le=2_592_000)] = 3_600


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings; relative paths are taken from the folder of the settings file.

    `data_dir`: database, keys and secrets; default `.interlock`. `database_url`: a Postgres
    database, default none, which means SQLite in `data_dir`. `host`, `port`: where the server
    listens; default `127.0.0.1` and 8425, port 0 takes any free one. `public_url`: the address by
    which people reach it through a proxy, default none: links lead there and its host is answered
    besides this machine's names. `environment`: the one that
    runs started by hand take; default `dev`. `models`: by name; agents that name none take
    `default`. `approval_ttl_s`: seconds until an unanswered approval counts as refused; default
    86400, 60 to 2592000. `concurrency`: runs at once in a worker, but for waiting ones;
    default 30, 1 to 1000. `retention_days`: how long runs are kept after their whole tree has
    ended, 7 to 36500; default none, which is for ever. `log_format`: `console` (default) or
    `json`. `is_insecure`: allows to listen beyond this machine without TLS, for a proxy that adds
    it; default false. `crash_file`: arms a crash point for tests; default none.
    `secrets_key_file`: the keys that stored secrets are sealed with, the same on every host;
    default `secrets.key` in the data folder. `secrets`: where credentials are kept.
    """

    __pydantic_config__ = _STRICT

    data_dir: Path = Path(".interlock")
    database_url: Annotated[str, AfterValidator(_database_url)] | None = field(
        default=None, repr=False
    )
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8425
    public_url: Annotated[str, AfterValidator(_http_address)] | None = None
    environment: Environment = "dev"
    models: Mapping[str, ModelSettings] = field(default_factory=dict)
    approval_ttl_s: Annotated[int, Field(ge=60, le=2_592_000)] = 86_400
    concurrency: Annotated[int, Field(ge=1, le=1_000)] = 30
    retention_days: Annotated[int, Field(ge=7, le=36_500)] | None = None
    log_format: Literal["console", "json"] = "console"
    is_insecure: bool = False
    crash_file: Path | None = None
    secrets_key_file: Path | None = None
    secrets: SecretSettings = field(default_factory=SecretSettings)

    @property
    def key_file(self) -> Path:
        """The file with the keys of secrets: the one set, else the one in the data folder."""
        return self.secrets_key_file or self.data_dir / "secrets.key"

    @property
    def store_url(self) -> str:
        """URL of the database: the one set, else the SQLite file in the data folder."""
        return self.database_url or f"sqlite:///{self.data_dir / 'interlock.db'}"

    def url(self, port: int | None = None) -> str:
        """Return where links lead: `public_url`, else the address of this machine at `port`."""
        if self.public_url is not None:
            return self.public_url.rstrip("/")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port if port is None else port}"


_TABLES: Mapping[str, type] = {"models": ModelSettings, "secrets": SecretSettings}


def load(folder: Path, environ: Mapping[str, str]) -> Config:
    """Read `interlock.toml` in `folder` (or the file named by INTERLOCK_CONFIG), then `environ`.

    A variable is `INTERLOCK_` and the key; `__` goes one level down
    (`INTERLOCK_MODELS__DEFAULT__PROVIDER`). It wins over the file, an empty one counts as absent.

    Raises:
        ConfigError: carries every problem found.
    """
    path = folder / environ.get(CONFIG_VARIABLE, FILE_NAME)
    values, places, problems = _read_file(path, is_required=CONFIG_VARIABLE in environ)
    for variable in sorted(environ):
        is_setting = variable.startswith(PREFIX) and not variable.startswith(NO_SETTINGS)
        if is_setting and variable != CONFIG_VARIABLE and environ[variable]:
            place = tuple(variable.removeprefix(PREFIX).lower().split("__"))
            places[place] = (variable, None)
            _put(values, place, environ[variable])
    config, misfits = _validated(values)
    for place, message, fix in misfits:
        name, line = _where(place, places) or (str(path), None)
        problems.append(Problem(path=name, line=line, message=message, fix=fix))
    if config is None or problems:
        raise ConfigError(tuple(problems))
    return replace(
        config,
        data_dir=path.parent / config.data_dir.expanduser(),
        crash_file=_at(path.parent, config.crash_file),
        secrets_key_file=_at(path.parent, config.secrets_key_file),
        secrets=replace(config.secrets, token_file=_at(path.parent, config.secrets.token_file)),
        models=MappingProxyType(dict(config.models)),
    )


def _at(folder: Path, file: Path | None) -> Path | None:
    return None if file is None else folder / file.expanduser()


def _read_file(path: Path, *, is_required: bool) -> tuple[Values, Places, list[Problem]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        missing = Problem(path=str(path), line=None, message="the settings file does not exist")
        return {}, {}, [missing] if is_required else []
    except (OSError, UnicodeDecodeError) as error:
        return {}, {}, [Problem(path=str(path), line=None, message=f"cannot be read: {error}")]
    try:
        values: Values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        line = int(found.group(1)) if found else None
        message = "is not TOML: " + str(error).partition(" (at")[0].lower()
        return {}, {}, [Problem(path=str(path), line=line, message=message)]
    return values, _lines(text, str(path)), []


def _lines(text: str, path: str) -> Places:
    """Map each key to its line, well enough to point at it: tables, then keys in them."""
    places: Places = {}
    table: Place = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[([^\[\]]+)\]", line):
            table = tuple(part.strip(" \"'") for part in header.group(1).split("."))
            places[table] = (path, number)
        elif key := re.match(r"\s*([\w.\"'-]+)\s*=", line):
            parts = (part.strip("\"'") for part in key.group(1).split("."))
            places[(*table, *parts)] = (path, number)
    return places


def _put(values: Values, place: Place, text: str) -> None:
    for part in place[:-1]:
        inner = values.get(part)
        values[part] = values = dict(inner) if isinstance(inner, dict) else {}
    is_list = place[-1] == "accepts"
    values[place[-1]] = [item.strip() for item in text.split(",")] if is_list else text


def _validated(values: Values) -> tuple[Config | None, list[Misfit]]:
    models = values.get("models")
    if isinstance(models, dict):
        named = {
            name: {**model, "name": name} if isinstance(model, dict) else model
            for name, model in models.items()
        }
        values = {**values, "models": named}
    try:
        config = TypeAdapter(Config).validate_python(values)
    except ValidationError as error:
        return None, [_misfit(tuple(map(str, e["loc"])), cast("Values", e)) for e in error.errors()]
    return config, _check(config)


def _misfit(place: Place, error: Values) -> Misfit:
    name = ".".join(place)
    # pydantic reports keys of a dataclass as arguments of its call.
    if error["type"] == "unexpected_keyword_argument":
        known = _TABLES.get(place[0], Config)
        fix = did_you_mean(place[-1], [f.name for f in fields(known) if f.name != "name"])
        return place, f"unknown key `{name}`", fix
    if error["type"].startswith("missing"):
        return place, f"`{name}` is missing", None
    message = f"`{name}` {error['msg'].removeprefix('Value error, ').removeprefix('Input ')}"
    # A key that stands where its reference belongs must not be repeated.
    is_shown = not _CONFIDENTIAL & set(place)
    return place, message + (f", got `{error['input']}`" if is_shown else ""), None


def _check(config: Config) -> list[Misfit]:
    found: list[Misfit] = []
    secrets = config.secrets
    if secrets.source == "vault":
        found += [
            (("secrets", name), f"`secrets.{name}` is missing", None)
            for name in ("address", "token_file")
            if getattr(secrets, name) is None
        ]
    if not config.is_insecure and not _is_loopback(config.host):
        message = f"`host` `{config.host}` is reached from other machines, and there is no TLS here"
        fix = "listen on 127.0.0.1, or set is_insecure behind a proxy that adds TLS"
        found.append((("host",), message, fix))
    for name, model in config.models.items():
        prices = (model.input_price_micro_usd_per_mtok, model.output_price_micro_usd_per_mtok)
        if prices.count(None) == 1:
            message = f"the model `{name}` has only one of its two prices"
            found.append((("models", name), message, "declare both, or none"))
    return found


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _where(place: Place, places: Places) -> tuple[str, int | None] | None:
    """Return the variable, or file and line, that set the nearest enclosing key."""
    for end in range(len(place), 0, -1):
        if place[:end] in places:
            return places[place[:end]]
    return None
