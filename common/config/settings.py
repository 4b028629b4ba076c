"""The environment of a process: addresses, folders, timers. Every name carries the prefix TIDAL_.

`get_settings()` reads the environment once per process (and `.env` in the working directory) and warns of names that
nobody knows; tests build `Settings(...)` themselves. An empty variable is an error. PORT, REDIS_URL and EXPERIMENTS_DIR
count where the name with TIDAL_ is set nowhere; HOST never does, because shells set it to the name of the machine.
Leaves out: variables that are needed before there are settings, which `common.config.environment` lists, and the job
configurations (what to train) in `common.config.lm` and `common.config.rl`.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, DotEnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from common.access import parse_hosts
from common.config.environment import PREFIX, refuse_empty, warn_of_unknown
from common.config.origins import parse_origins
from common.errors import ConfigError

PROJECT_ROOT = Path(__file__).resolve().parent.parent.parent
"""Folder that holds configs/ and migrations/."""


WITHOUT_PREFIX = {"PORT": "port", "REDIS_URL": "redis_url", "EXPERIMENTS_DIR": "experiments_dir"}
"""Names of the original that still count, by the field they set."""


class Settings(BaseSettings):
    """Everything a process takes from its environment. Durations are seconds."""

    model_config = SettingsConfigDict(
        env_prefix="TIDAL_",
        env_file=".env",
        extra="ignore",
        populate_by_name=True,
        use_attribute_docstrings=True,
        frozen=True,
        protected_namespaces=(),
        allow_inf_nan=False,
        hide_input_in_errors=True,  # among it are passwords
    )

    database_url: SecretStr = SecretStr("postgresql+psycopg://tidal@127.0.0.1:5432/tidal")
    """In a password inside the URL, characters such as `@`, `/`, `:` and `%` are written as `%40`, `%2F`, `%3A`, `%25`;
    or leave it out and set TIDAL_DATABASE_URL_PASSWORD."""
    database_url_password: SecretStr | None = None
    """The password of TIDAL_DATABASE_URL as it is, any character; goes where the URL has none."""
    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    """As TIDAL_DATABASE_URL. REDIS_URL counts where this is unset."""
    redis_url_password: SecretStr | None = None
    """The password of TIDAL_REDIS_URL as it is."""
    experiments_dir: Path = Path("experiments")
    """EXPERIMENTS_DIR counts where this is unset. The artifact store: one folder per experiment."""
    config_dir: Path = PROJECT_ROOT / "configs"
    """`configPath` and `rlConfigPath` of a request are looked up below this folder only."""
    data_dir: Path = Path("data")
    """Local corpora that a configuration may name, uploads (in `datasets/`) and the token cache (in `cache/`)."""
    dataset_max_mb: int = Field(4096, ge=1)
    """Largest dataset that may be uploaded, in MiB of text after decompression and, for parquet, decoding."""

    host: str = "127.0.0.1"
    """Address the api listens on. HOST is never read."""
    port: int = Field(4400, ge=0, le=65535)
    """PORT counts where this is unset."""
    root_path: str = ""
    """Sub-path when a proxy serves the api below one."""
    auth_token: SecretStr | None = None
    """The administrator's token. Without it the api starts on loopback only and prints one it made."""
    require_auth_for_reads: bool = False
    """Require the token for reading, generating and analysing as well. The health endpoints, the API reference and the
    dashboard's files stay open, because they contain no user data."""
    allowed_hosts: str = ""
    """Comma-separated host names (`tidal.example.org`, `*.example.org`) that the api and Flower accept in addition to
    IP addresses, localhost and the names of their machine; a request with another name in the header `Host` gets 421.
    Required behind a proxy that passes this header on."""
    allowed_origins: str = ""
    """Comma-separated origins (`https://host` or `https://host:port`) of web pages elsewhere that may call the api from
    a browser; `*`: any."""
    trusted_proxies: str = ""
    """Comma-separated addresses whose X-Forwarded-For is believed."""
    flower_host: str = "127.0.0.1"
    """Address Flower listens on; `tidal up` always uses loopback."""
    flower_port: int | None = Field(None, ge=0, le=65535)
    """Port of Flower, in compose the published one. None: 5555; if that is taken, `tidal up` uses another port."""
    flower_password: SecretStr | None = None
    """Flower's password for the user `tidal`, without a comma. `tidal up` generates one if none is set."""
    umask: str = Field("077", pattern=r"^0?[0-7]{3}$")
    """Umask of every process, octal. With 077 only the user who runs Tidal can read experiments, datasets and logs;
    with 027 that user's group can, too. Exports and `tidal train` follow the umask of the shell."""

    max_connections: int = Field(4096, ge=16, le=100_000)
    """Most open connections of the api, of which half may be streams. The limit is lower if the process may open fewer
    than about twice as many file descriptors. Beyond it the api closes the connection that has been idle longest; if
    none is idle, it answers 503."""
    request_header_seconds: float = Field(10.0, gt=0, le=3600)
    """Most seconds in which the header of a request must arrive, counted from the connection's start or from the first
    byte of a later request; after that the api answers 408."""
    request_body_seconds: float = Field(60.0, gt=0, le=3600)
    """Most seconds that the body of a request may lag behind TIDAL_REQUEST_BODY_RATE, for example because the client
    pauses; after that the api answers 408."""
    request_body_rate: int = Field(500, ge=1)
    """Least average rate at which a client must send the body of a request, in bytes per second."""
    keep_alive_seconds: float = Field(75.0, gt=0, le=3600)
    """Most idle seconds of a connection between two requests; set it higher than the same limit of a proxy in front of
    the api."""

    lease_seconds: float = Field(60.0, gt=0)
    lease_renew_seconds: float = Field(10.0, gt=0)
    trainer_pause_seconds: float = Field(40.0, gt=0)
    """The trainer stands still after so long without a renewed lease."""
    heartbeat_seconds: float = Field(10.0, gt=0)
    reaper_seconds: float = Field(5.0, gt=0)
    quarantine_seconds: float = Field(15.0, ge=0)
    """Between the end of a lease and the next attempt; counted from lease_expires_at."""
    reaper_contact_seconds: float = Field(20.0, ge=0)
    """Unbroken contact with the database before the reaper marks anything after losing it."""
    outbox_seconds: float = Field(15.0, gt=0)
    """Sweep that re-rings doorbells of pending jobs."""
    wish_poll_seconds: float = Field(2.0, gt=0)
    stop_grace_seconds: float = Field(60.0, gt=0)
    """From a stop wish to SIGTERM of the trainer."""
    kill_grace_seconds: float = Field(30.0, gt=0)
    """From SIGTERM to SIGKILL."""
    drain_seconds: float = Field(60.0, gt=0)
    """What a worker has for checkpoint and release after SIGTERM."""
    no_progress_seconds: float = Field(120.0, gt=0)
    """A trainer that beats but does not progress is killed and retried, not before so much silence between steps (10
    times the median of its micro-batches, if that is longer)."""
    phase_seconds: float = Field(1800.0, gt=0)
    """The same within a named phase: compile, evaluation, checkpoint, and before the first 20 micro-batches."""
    trainer_command: str = ""
    """Command line of the trainer child; empty: this Python with `-m services.trainer`."""
    log_max_bytes: int = Field(64 * 1024 * 1024, ge=1024)
    """Size of one attempt's log file; what a trainer prints beyond it is dropped and counted."""
    disk_reserve_mb: int = Field(1024, ge=0)
    """Free space in MiB that Tidal keeps on the disks of experiments and data. With less, running jobs wait until there
    is room and uploads are refused; at twice the value, health applies the retention at once. 0: no reserve."""
    max_waiting_jobs: int = Field(500, ge=1)
    """Most waiting jobs per token, including jobs with a future `notBefore`; the api answers a further submission with
    429."""
    retention_days: float = Field(0.0, ge=0)
    """Health deletes logs and metrics of experiments whose job ended so many days ago; 0: never. Models, checkpoints,
    results and rows stay."""
    max_infra_restarts: int = Field(3, ge=1)
    """A job fails at so many lost attempts without a new checkpoint."""
    max_user_failures: int = Field(0, ge=0)
    """Python errors and CUDA out of memory a job survives; 0: fails at once."""
    lm_training_concurrency: int = Field(1, ge=0)
    """Most lm-training jobs that hold a slot at once, over all workers; 0: as many as there are workers."""
    rl_training_concurrency: int = Field(1, ge=0)
    """The same for rl-training."""
    other_concurrency: int = Field(4, ge=0)
    """The same for each of evaluation, ablation, analysis and dataset."""

    generate_queue_seconds: float = Field(30.0, gt=0)
    generate_total_seconds: float = Field(120.0, gt=0)
    generate_redis_seconds: float = Field(4.0, gt=0)
    """Generations in progress end with 503 when Redis does not answer for so long."""
    presence_seconds: float = Field(5.0, gt=0)
    """Between two looks of an engine for api processes that have died; their texts end after two such looks."""
    generator_threads: int | None = Field(None, ge=1)
    """CPU threads of the generator's engine; None: all cores."""
    generator_device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    generator_gpu_mb: int | None = Field(None, ge=64)
    """Most accelerator memory the engine may take, MiB; None: no limit."""
    generator_models_mb: int = Field(1024, ge=1)
    """Memory of the language models that stay loaded, MiB; the least recently used goes first."""
    generator_precision: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    """What the engine multiplies in; auto: bfloat16 on a GPU, float32 on a CPU. int8: CPU only, for few texts."""
    generator_slots: int = Field(64, ge=1, le=4096)
    """Texts that one engine writes at once; further requests stay in the queue."""
    generate_queue_limit: int = Field(256, ge=1)
    """Requests that may wait in the queue; beyond that the api answers 429."""
    rate_limit_capacity: int = Field(5, ge=1)
    """Generate requests at once for callers without a token, by address."""
    rate_limit_refill_seconds: float = Field(6.0, gt=0)
    """One more generate request per so many seconds for callers without a token."""
    token_rate_limit_capacity: int = Field(0, ge=0)
    """Generate requests at once for the holder of a token; 0: no limit."""
    token_rate_limit_refill_seconds: float = Field(1.0, gt=0)
    """One more generate request per so many seconds for the holder of a token, where there is a limit."""
    stream_max_length: int = Field(20_000, ge=100)
    """Entries a Redis stream keeps (approximately)."""
    stream_linger_seconds: float = Field(10.0, ge=0)
    """A live stream is read on for so long after its last client has left."""
    stream_client_seconds: float = Field(30.0, gt=0)
    """A stream client whose socket takes nothing for so long is closed."""
    stop_budget_seconds: float = Field(
        12.0, gt=0, validation_alias=AliasChoices("TIDAL_STOP_BUDGET_SECONDS", "TIDAL_STOP_BUDGET")
    )
    """Local mode: from Ctrl-C to the last process gone. TIDAL_STOP_BUDGET is the same."""

    @field_validator("allowed_hosts")
    @classmethod
    def _are_hosts(cls, given: str) -> str:
        return ",".join(parse_hosts(given))

    @field_validator("allowed_origins")
    @classmethod
    def _are_origins(cls, given: str) -> str:
        return ",".join(parse_origins(given))

    @model_validator(mode="after")
    def _urls_with_their_passwords(self) -> Self:
        for name in ("database_url", "redis_url"):
            password: SecretStr | None = getattr(self, f"{name}_password")
            if password is not None:
                variable = f"{PREFIX}{name.upper()}"
                if name not in self.model_fields_set:
                    raise ValueError(f"{variable}_PASSWORD is set and {variable} is not; set both")
                url = getattr(self, name).get_secret_value()
                object.__setattr__(self, name, SecretStr(_with_password(url, password.get_secret_value(), name)))
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, environment, `.env`, and after all of them the names without prefix."""
        file = dict(dotenv_settings.env_vars) if isinstance(dotenv_settings, DotEnvSettingsSource) else {}
        refuse_empty(os.environ, "the environment")
        refuse_empty({name.upper(): value for name, value in file.items()}, ".env")
        return init_settings, env_settings, dotenv_settings, _WithoutPrefix(settings_cls, file)


class _WithoutPrefix(PydanticBaseSettingsSource):
    """PORT, REDIS_URL and EXPERIMENTS_DIR, of the environment or else of `.env`."""

    def __init__(self, settings_cls: type[BaseSettings], file: dict[str, str | None]) -> None:
        super().__init__(settings_cls)
        self._found = {**{name.upper(): value for name, value in file.items()}, **os.environ}

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        """Of one field; the base class asks for it."""
        name = next((name for name, set_by in WITHOUT_PREFIX.items() if set_by == field_name), "")
        return self._found.get(name) or None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """All that are set."""
        return {field: value for name, field in WITHOUT_PREFIX.items() if (value := self._found.get(name))}


def _with_password(url: str, password: str, name: str) -> str:
    """The URL with the password quoted; ValueError where it has another one."""
    parts = urlsplit(url)
    user, _, server = parts.netloc.rpartition("@")
    user, colon, inside = user.partition(":")
    if colon and unquote(inside) != password:
        raise ValueError(f"{PREFIX}{name.upper()} holds a password, and {PREFIX}{name.upper()}_PASSWORD another one")
    return urlunsplit(parts._replace(netloc=f"{user}:{quote(password, safe='')}@{server}"))


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, read once; a name with TIDAL_ that nobody knows is a warning.

    Raises ConfigError that names the variable.
    """
    settings = read_settings()
    in_file = {name.upper() for name in DotEnvSettingsSource(Settings).env_vars}
    warn_of_unknown(variables(), in_file=in_file)
    return settings


def read_settings() -> Settings:
    """The settings of this moment. ConfigError names the variable."""
    try:
        return Settings()
    except ValidationError as error:
        raise ConfigError("; ".join(_finding(dict(item)) for item in error.errors(include_url=False))) from None


def variables() -> frozenset[str]:
    """Every name that sets something here."""
    return frozenset({f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | {"TIDAL_STOP_BUDGET"})


def _finding(item: dict[str, Any]) -> str:
    message = str(item["msg"]).removeprefix("Value error, ")
    if not item["loc"]:
        return message
    name = str(item["loc"][0])
    field = name.removeprefix(PREFIX).lower()
    variable = f"{PREFIX}{field.upper()}"
    secret = field not in Settings.model_fields or "SecretStr" in str(Settings.model_fields[field].annotation)
    return f"{variable}: {message}" if secret else f"{variable}: {message}, got {str(item.get('input'))[:100]!r}"
