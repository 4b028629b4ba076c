"""Reads the settings of a process, such as addresses, folders and timers, from environment variables named TIDAL_….

`get_settings()` reads the environment and `.env` in the working directory once per process. It warns of unknown names
and of names that have been renamed; tests construct `Settings(...)` themselves. An empty variable is an error. PORT,
REDIS_URL and EXPERIMENTS_DIR are read if the same name with TIDAL_ is not set; HOST is never read, because some shells
set it to the name of the machine. Leaves out variables that are read before the settings exist
(`common.config.environment`) and the configurations of jobs (`common.config.lm`, `common.config.rl`).
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
from common.config.environment import PREFIX, refuse_empty, warn_of_renamed, warn_of_unknown
from common.config.origins import parse_origins
from common.errors import ConfigError

PROJECT_ROOT = Path(__file__).resolve().parent.parent.parent
"""The folder that contains configs/ and migrations/."""


WITHOUT_PREFIX = {"PORT": "port", "REDIS_URL": "redis_url", "EXPERIMENTS_DIR": "experiments_dir"}
"""Variables of the original project that are still read, and the fields they set."""
RENAMED = {"TIDAL_WISH_POLL_SECONDS": "TIDAL_DESIRED_STATE_POLL_SECONDS"}
"""Former names of variables and their present names. A former name still works; its use is logged as a warning."""


class Settings(BaseSettings):
    """The settings that a process reads from its environment. Durations are in seconds."""

    model_config = SettingsConfigDict(
        env_prefix="TIDAL_",
        env_file=".env",
        extra="ignore",
        populate_by_name=True,
        use_attribute_docstrings=True,
        frozen=True,
        protected_namespaces=(),
        allow_inf_nan=False,
        hide_input_in_errors=True,  # the input includes passwords
    )

    database_url: SecretStr = SecretStr("postgresql+psycopg://tidal@127.0.0.1:5432/tidal")
    """URL of PostgreSQL. In a password inside the URL, write `@`, `/`, `:` and `%` as `%40`, `%2F`, `%3A` and `%25`; or
    leave the password out and set TIDAL_DATABASE_URL_PASSWORD."""
    database_url_password: SecretStr | None = None
    """Password to insert into TIDAL_DATABASE_URL, unquoted; it may contain any character."""
    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    """URL of Redis, with a password quoted as in TIDAL_DATABASE_URL. If it is not set, REDIS_URL is used."""
    redis_url_password: SecretStr | None = None
    """Password to insert into TIDAL_REDIS_URL, unquoted; it may contain any character."""
    experiments_dir: Path = Path("experiments")
    """Folder of the artifact store, with one folder per experiment. If it is not set, EXPERIMENTS_DIR is used."""
    config_dir: Path = PROJECT_ROOT / "configs"
    """The only folder below which `configPath` and `rlConfigPath` of a request are looked up."""
    data_dir: Path = Path("data")
    """Folder of the local corpora that a configuration may name, of uploads (`datasets/`) and of the token cache
    (`cache/`)."""
    dataset_max_mb: int = Field(4096, ge=1)
    """Largest dataset that may be uploaded, in MiB of text after decompression and, for parquet, after decoding."""

    host: str = "127.0.0.1"
    """Address that the api listens on. The variable HOST is never read."""
    port: int = Field(4400, ge=0, le=65535)
    """Port that the api listens on. If it is not set, PORT is used."""
    root_path: str = ""
    """Path below which a proxy serves the api, such as `/tidal`."""
    auth_token: SecretStr | None = None
    """The administrator's token. If it is not set, the api generates and prints a token, and starts on a loopback
    address only."""
    require_auth_for_reads: bool = False
    """Require the token for reading, generating and analysing as well. The health endpoints, the API reference and the
    dashboard's files stay open, because they contain no user data."""
    allowed_hosts: str = ""
    """Comma-separated host names (`tidal.example.org`, `*.example.org`) that the api and Flower accept in addition to
    IP addresses, localhost and the names of their machine; a request with another name in the header `Host` gets 421.
    Required behind a proxy that passes this header on."""
    allowed_origins: str = ""
    """Comma-separated origins (`https://host` or `https://host:port`) of web pages on other servers that may call the
    api from a browser; `*` allows every origin."""
    trusted_proxies: str = ""
    """Comma-separated addresses of proxies whose header X-Forwarded-For is trusted."""
    flower_host: str = "127.0.0.1"
    """Address that Flower listens on; `tidal up` always uses loopback."""
    flower_port: int | None = Field(None, ge=0, le=65535)
    """Port of Flower, in compose the published port. None: 5555, or a free port for `tidal up` if 5555 is taken."""
    flower_password: SecretStr | None = None
    """Flower's password for the user `tidal`, without a comma. `tidal up` generates one if none is set."""
    umask: str = Field("077", pattern=r"^0?[0-7]{3}$")
    """Umask of every process, octal. With 077 only the user who runs Tidal can read experiments, datasets and logs;
    with 027 that user's group can, too. Exports and `tidal train` follow the umask of the shell."""

    max_connections: int = Field(4096, ge=16, le=100_000)
    """Most open connections of the api; half of them may be streams. The limit is lower if the process may open fewer
    than about twice as many file descriptors. At the limit the api closes the connection that has been idle longest; if
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
    """Length of a lease: a job whose worker has not renewed its lease for so long is stale."""
    lease_renew_seconds: float = Field(10.0, gt=0)
    """Interval at which a worker renews the lease of its job."""
    trainer_pause_seconds: float = Field(40.0, gt=0)
    """A trainer stops stepping when its lease has not been renewed for so long."""
    heartbeat_seconds: float = Field(10.0, gt=0)
    """Interval at which a worker records that it is alive."""
    reaper_seconds: float = Field(5.0, gt=0)
    """Interval at which the reaper looks for stale jobs."""
    quarantine_seconds: float = Field(15.0, ge=0)
    """Least time between `lease_expires_at` of a stale job and its next attempt."""
    reaper_contact_seconds: float = Field(20.0, ge=0)
    """After the reaper has lost the database, it needs unbroken contact for so long before it changes a job."""
    outbox_seconds: float = Field(15.0, gt=0)
    """Interval at which notifications of pending jobs are sent again."""
    desired_state_poll_seconds: float = Field(
        2.0, gt=0, validation_alias=AliasChoices("TIDAL_DESIRED_STATE_POLL_SECONDS", "TIDAL_WISH_POLL_SECONDS")
    )
    """Interval at which a worker reads the desired state of its job, in case a notification is lost."""
    stop_grace_seconds: float = Field(60.0, gt=0)
    """Time from a stop request until the trainer receives SIGTERM."""
    kill_grace_seconds: float = Field(30.0, gt=0)
    """Time from SIGTERM until the trainer receives SIGKILL."""
    drain_seconds: float = Field(60.0, gt=0)
    """Time that a worker has after SIGTERM to write a checkpoint and to release its job."""
    no_progress_seconds: float = Field(120.0, gt=0)
    """A trainer that sends heartbeats but finishes no step for so long is killed and its job is retried. The limit is
    10 times the median duration of its micro-batches if that is longer."""
    phase_seconds: float = Field(1800.0, gt=0)
    """The same limit within a named phase (compile, evaluation, checkpoint) and before the first 20 micro-batches."""
    trainer_command: str = ""
    """Command line that starts a trainer; empty: this Python with `-m services.trainer`."""
    log_max_bytes: int = Field(64 * 1024 * 1024, ge=1024)
    """Largest size of an attempt's log file, in bytes; further output of the trainer is dropped and counted."""
    disk_reserve_mb: int = Field(1024, ge=0)
    """Space in MiB that Tidal keeps free on the disks of experiments and data. With less free space, running jobs wait
    and uploads are refused; below twice this value, health applies the retention at once. 0: no reserve."""
    max_waiting_jobs: int = Field(500, ge=1)
    """Most waiting jobs per token, including jobs whose `notBefore` is in the future; the api answers a further
    submission with 429."""
    retention_days: float = Field(0.0, ge=0)
    """Health deletes logs and metrics of experiments whose job ended so many days ago; 0: never. Models, checkpoints,
    results and database rows stay."""
    max_infra_restarts: int = Field(3, ge=1)
    """Number of lost attempts without a new checkpoint at which a job fails."""
    max_user_failures: int = Field(0, ge=0)
    """Python errors and CUDA out-of-memory errors after which a job is tried again; 0: it fails at the first one."""
    lm_training_concurrency: int = Field(1, ge=0)
    """Most lm-training jobs that all workers together run at once; 0: as many as there are workers."""
    rl_training_concurrency: int = Field(1, ge=0)
    """The same limit for rl-training jobs."""
    other_concurrency: int = Field(4, ge=0)
    """The same limit for each of the job types evaluation, ablation, analysis and dataset."""

    generate_queue_seconds: float = Field(30.0, gt=0)
    """Most seconds that a generate request waits in the queue; after that the api answers 503."""
    generate_total_seconds: float = Field(120.0, gt=0)
    """Most seconds that a generate request may take; after that it ends with an error."""
    generate_redis_seconds: float = Field(4.0, gt=0)
    """Generate requests in progress end with 503 when Redis has not answered for so long."""
    presence_seconds: float = Field(5.0, gt=0)
    """Interval at which an engine looks for api processes that have died; their sequences end at the second check."""
    generator_threads: int | None = Field(None, ge=1)
    """CPU threads of the generator's engine; None: all cores."""
    generator_device: str = "auto"
    """Device of the engine: auto, cpu, cuda or cuda:N."""
    generator_gpu_mb: int | None = Field(None, ge=64)
    """Most accelerator memory that the engine may use, in MiB; None: no limit."""
    generator_models_mb: int = Field(1024, ge=1)
    """Memory for loaded language models, in MiB; the least recently used model is unloaded first."""
    generator_precision: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    """Number format of the engine's matrix products; auto: bfloat16 on a GPU, float32 on a CPU. int8 is for a CPU and
    few sequences at once."""
    generator_slots: int = Field(64, ge=1, le=4096)
    """Sequences that one engine generates at once; further requests stay in the queue."""
    generate_queue_limit: int = Field(256, ge=1)
    """Requests that may wait in the queue; the api answers further ones with 429."""
    rate_limit_capacity: int = Field(5, ge=1)
    """Generate requests that callers without a token may send at once, counted per address."""
    rate_limit_refill_seconds: float = Field(6.0, gt=0)
    """Seconds after which callers without a token may send one more generate request."""
    token_rate_limit_capacity: int = Field(0, ge=0)
    """Generate requests that the holder of a token may send at once; 0: no limit."""
    token_rate_limit_refill_seconds: float = Field(1.0, gt=0)
    """Seconds after which the holder of a token may send one more generate request, if there is a limit."""
    stream_max_length: int = Field(20_000, ge=100)
    """Approximate number of entries that a Redis stream keeps."""
    stream_linger_seconds: float = Field(10.0, ge=0)
    """A live stream is read for so long after its last client has disconnected."""
    stream_client_seconds: float = Field(30.0, gt=0)
    """A stream is closed when its client's socket accepts no data for so long."""
    stop_budget_seconds: float = Field(
        12.0, gt=0, validation_alias=AliasChoices("TIDAL_STOP_BUDGET_SECONDS", "TIDAL_STOP_BUDGET")
    )
    """Local mode: time from Ctrl-C until the last process has ended. TIDAL_STOP_BUDGET is another name for it."""

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
                    raise ValueError(f"{variable}_PASSWORD is set but {variable} is not; set both")
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
        """Return the sources in order of precedence: arguments, environment, `.env`, names without a prefix."""
        file = dict(dotenv_settings.env_vars) if isinstance(dotenv_settings, DotEnvSettingsSource) else {}
        refuse_empty(os.environ, "the environment")
        refuse_empty({name.upper(): value for name, value in file.items()}, ".env")
        return init_settings, env_settings, dotenv_settings, _WithoutPrefix(settings_cls, file)


class _WithoutPrefix(PydanticBaseSettingsSource):
    """Reads PORT, REDIS_URL and EXPERIMENTS_DIR from the environment, or from `.env` if they are not set there."""

    def __init__(self, settings_cls: type[BaseSettings], file: dict[str, str | None]) -> None:
        super().__init__(settings_cls)
        self._found = {**{name.upper(): value for name, value in file.items()}, **os.environ}

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        """Return the value of one field, its name, and False because no value needs to be parsed as JSON."""
        name = next((name for name, set_by in WITHOUT_PREFIX.items() if set_by == field_name), "")
        return self._found.get(name) or None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the values of all fields that are set."""
        return {field: value for name, field in WITHOUT_PREFIX.items() if (value := self._found.get(name))}


def _with_password(url: str, password: str, name: str) -> str:
    """Return the URL with the quoted password inserted; raise ValueError if it contains a different one."""
    parts = urlsplit(url)
    user, _, server = parts.netloc.rpartition("@")
    user, colon, inside = user.partition(":")
    if colon and unquote(inside) != password:
        variable = f"{PREFIX}{name.upper()}"
        raise ValueError(f"{variable} contains a password that differs from {variable}_PASSWORD; set only one of them")
    return urlunsplit(parts._replace(netloc=f"{user}:{quote(password, safe='')}@{server}"))


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Return the settings of this process, which are read once; log a warning for each unknown or renamed variable.

    Raises ConfigError, which names the variable, for an invalid value.
    """
    settings = read_settings()
    in_file = {name.upper() for name in DotEnvSettingsSource(Settings).env_vars}
    warn_of_unknown(variables(), in_file=in_file)
    warn_of_renamed(RENAMED, in_file=in_file)
    return settings


def read_settings() -> Settings:
    """Return the settings as the environment sets them now; raise ConfigError, which names the variable."""
    try:
        return Settings()
    except ValidationError as error:
        raise ConfigError("; ".join(_finding(dict(item)) for item in error.errors(include_url=False))) from None


def variables() -> frozenset[str]:
    """Return the names of all variables with TIDAL_ that set a field."""
    present = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    return frozenset(present | RENAMED.keys() | {"TIDAL_STOP_BUDGET"})


def _finding(item: dict[str, Any]) -> str:
    message = str(item["msg"]).removeprefix("Value error, ")
    if not item["loc"]:
        return message
    name = str(item["loc"][0])
    field = name.removeprefix(PREFIX).lower()
    variable = f"{PREFIX}{field.upper()}"
    secret = field not in Settings.model_fields or "SecretStr" in str(Settings.model_fields[field].annotation)
    return f"{variable}: {message}" if secret else f"{variable}: {message}, got {str(item.get('input'))[:100]!r}"
