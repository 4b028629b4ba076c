"""Reads the settings of a process, such as addresses, folders and timers, from TIDAL_ environment variables.

`get_settings()` reads the environment and `.env` in the working directory once per process. It logs warnings for
unknown and renamed variables. An empty variable is an error. PORT, REDIS_URL and EXPERIMENTS_DIR are read if the same
name with the prefix TIDAL_ is not set. HOST is never read, because some shells set it to the name of the machine. Other
TIDAL_ variables, for example those of compose, are in `common.config.environment`. The configurations of jobs are in
`common.config.lm` and `common.config.rl`.
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
"""{variable of the original project: field that it sets}."""
RENAMED = {"TIDAL_WISH_POLL_SECONDS": "TIDAL_DESIRED_STATE_POLL_SECONDS"}
"""{former name of a variable: present name}. Former names still work, with a warning in the log."""


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
        hide_input_in_errors=True,  # error messages must not contain the input, which includes passwords
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
    """Folder of the configuration files that a request may name as `configPath` or `rlConfigPath`."""
    data_dir: Path = Path("data")
    """Folder with the local corpora that a configuration may name, uploaded datasets (`datasets/`) and the token cache
    (`cache/`)."""
    dataset_max_mb: int = Field(4096, ge=1)
    """Largest size of an uploaded dataset: MiB of text, after decompression and, for parquet, after decoding."""

    host: str = "127.0.0.1"
    """Address that the api listens on. The variable HOST is never read."""
    port: int = Field(4400, ge=0, le=65535)
    """Port that the api listens on. If it is not set, PORT is used."""
    root_path: str = ""
    """Path prefix under which a proxy serves the api, such as `/tidal`."""
    auth_token: SecretStr | None = None
    """The administrator's token. If it is not set, the api generates and prints a token, and starts only if TIDAL_HOST
    is a loopback address."""
    require_auth_for_reads: bool = False
    """Whether reading, generating and analysing require a token, too. The health endpoints, the API reference and the
    dashboard's files never require one, because they contain no user data."""
    allowed_hosts: str = ""
    """Comma-separated host names (`tidal.example.org`, `*.example.org`) that the api and Flower accept in addition to
    IP addresses, localhost and the names of their machine; a request with another name in the header `Host` gets 421.
    Set this variable if a proxy passes the header on."""
    allowed_origins: str = ""
    """Comma-separated origins (`https://host` or `https://host:port`) of web pages on other servers that may call the
    api from a browser; `*` allows every origin."""
    trusted_proxies: str = ""
    """Comma-separated addresses of proxies whose header X-Forwarded-For is trusted."""
    flower_host: str = "127.0.0.1"
    """Address that Flower listens on. `tidal up` ignores it and uses a loopback address."""
    flower_port: int | None = Field(None, ge=0, le=65535)
    """Port of Flower; in compose, the published port. None means 5555; `tidal up` uses a free port if 5555 is in
    use."""
    flower_password: SecretStr | None = None
    """Flower's password for the user `tidal`, without a comma. `tidal up` generates one if none is set."""
    umask: str = Field("077", pattern=r"^0?[0-7]{3}$")
    """Umask of every process, octal. With 077 only the user who runs Tidal can read experiments, datasets and logs.
    With 027 members of that user's group can read them, too. Exports and `tidal train` follow the umask of the
    shell."""

    max_connections: int = Field(4096, ge=16, le=100_000)
    """Maximum number of open connections of the api; up to half of them may be event streams. The limit is lower if the
    process may open fewer than about twice as many file descriptors. At the limit the api closes the connection that
    has been idle longest; if none is idle, it answers a new connection with 503."""
    request_header_seconds: float = Field(10.0, gt=0, le=3600)
    """Seconds within which the header of a request must arrive, counted from the start of the connection, or from the
    first byte of a later request on it. After that the api answers 408."""
    request_body_seconds: float = Field(60.0, gt=0, le=3600)
    """The api answers 408 if the body of a request is more than this many seconds behind TIDAL_REQUEST_BODY_RATE, for
    example because the client pauses."""
    request_body_rate: int = Field(500, ge=1)
    """Lowest average rate, in bytes per second, at which a client must send the body of a request."""
    keep_alive_seconds: float = Field(75.0, gt=0, le=3600)
    """Seconds after which the api closes a connection that is idle between two requests. If a proxy is in front of the
    api, set a higher value than the proxy's."""

    lease_seconds: float = Field(60.0, gt=0)
    """Length of a lease. A running job whose lease has not been renewed for this time is stale."""
    lease_renew_seconds: float = Field(10.0, gt=0)
    """Interval at which a worker renews the lease of its job."""
    trainer_pause_seconds: float = Field(40.0, gt=0)
    """A trainer suspends training when its job's lease has not been renewed for this time."""
    heartbeat_seconds: float = Field(10.0, gt=0)
    """Interval at which a worker sends a heartbeat."""
    reaper_seconds: float = Field(5.0, gt=0)
    """Interval at which the reaper of the health service looks for stale jobs."""
    quarantine_seconds: float = Field(15.0, ge=0)
    """Time from the expiry of a lease to the return of the stale job to the queue."""
    reaper_contact_seconds: float = Field(20.0, ge=0)
    """After an outage of the database, the reaper changes no job until the database has been reachable for this
    time."""
    outbox_seconds: float = Field(15.0, gt=0)
    """Interval at which workers are notified again of pending jobs, in case a notification was lost."""
    desired_state_poll_seconds: float = Field(
        2.0, gt=0, validation_alias=AliasChoices("TIDAL_DESIRED_STATE_POLL_SECONDS", "TIDAL_WISH_POLL_SECONDS")
    )
    """Interval at which a worker checks for a pause or stop request of its job, in case a notification was lost."""
    stop_grace_seconds: float = Field(60.0, gt=0)
    """Time from a stop request to SIGTERM for a trainer that has not ended."""
    kill_grace_seconds: float = Field(30.0, gt=0)
    """Time from SIGTERM to SIGKILL for a trainer that has not ended."""
    drain_seconds: float = Field(60.0, gt=0)
    """Time after SIGTERM in which a worker may write a checkpoint and release its job."""
    no_progress_seconds: float = Field(120.0, gt=0)
    """Time without progress after which a trainer is killed and its job is tried again. If 10 times the median duration
    of its micro-batches is longer, this longer time applies."""
    phase_seconds: float = Field(1800.0, gt=0)
    """Limit like TIDAL_NO_PROGRESS_SECONDS, for phases such as compile, evaluation and checkpoint, and for the first 20
    micro-batches."""
    calibrate: bool = True
    """Whether a training worker measures the speed of its machine once, for about 15 seconds while it is idle. The
    prediction of memory and duration needs this measurement or earlier runs of the same shape."""
    trainer_command: str = ""
    """Command line that starts a trainer. By default it is the worker's Python with `-m services.trainer`."""
    log_max_bytes: int = Field(64 * 1024 * 1024, ge=1024)
    """Largest size of the log file of an attempt, in bytes. Further output of the trainer is dropped and counted."""
    disk_reserve_mb: int = Field(1024, ge=0)
    """MiB that Tidal keeps free on the disks of experiments and data. With less free space, running jobs wait and
    uploads are refused. With less than twice this value, the health service applies TIDAL_RETENTION_DAYS at once. 0
    disables the reserve."""
    max_waiting_jobs: int = Field(500, ge=1)
    """Maximum number of waiting jobs per token, including jobs whose `notBefore` is in the future. The api rejects
    further submissions with 429."""
    retention_days: float = Field(0.0, ge=0)
    """Days after the end of a job after which the health service deletes logs and metrics of its experiment; 0 means
    never. Models, checkpoints, results and database rows are kept."""
    audit_days: float = Field(365.0, ge=0)
    """Days after which the health service deletes entries of the audit log; 0 means never."""
    max_infra_restarts: int = Field(3, ge=1)
    """A job fails after this number of consecutive attempts that were lost (for example with their worker) without a
    new checkpoint."""
    max_user_failures: int = Field(0, ge=0)
    """How often a job is tried again after a Python error or a CUDA out-of-memory error; 0 means that it fails at the
    first one."""
    lm_training_concurrency: int = Field(1, ge=0)
    """Maximum number of lm-training jobs that run at the same time on all workers together; 0 means no limit."""
    rl_training_concurrency: int = Field(1, ge=0)
    """Maximum number of rl-training jobs that run at the same time on all workers together; 0 means no limit."""
    other_concurrency: int = Field(4, ge=0)
    """Maximum number of jobs of each of the types evaluation, headroom, ablation, analysis and dataset that run at the
    same time; 0 means no limit."""

    generate_queue_seconds: float = Field(30.0, gt=0)
    """Seconds after which the api answers a queued generate request with 503."""
    generate_total_seconds: float = Field(120.0, gt=0)
    """Seconds after which a generate request ends with an error."""
    generate_redis_seconds: float = Field(4.0, gt=0)
    """Generate requests end with 503 when Redis has not answered for this time."""
    presence_seconds: float = Field(5.0, gt=0)
    """Interval at which an engine checks whether api processes are alive. It cancels the requests of an api process
    that is missing at two checks in a row."""
    generator_threads: int | None = Field(None, ge=1)
    """Number of CPU threads of the generator's engine; None means one per core."""
    generator_device: str = "auto"
    """Device of the engine: cpu, cuda, cuda:N, or auto, which prefers an available GPU."""
    generator_gpu_mb: int | None = Field(None, ge=64)
    """Maximum GPU memory that the engine may use, in MiB; None means no limit."""
    generator_models_mb: int = Field(1024, ge=1)
    """Maximum memory for loaded language models, in MiB. The least recently used model is unloaded first."""
    generator_precision: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    """Number format of the engine's matrix products; auto means bfloat16 on a GPU and float32 on a CPU. int8 is faster
    on a CPU for few sequences at once."""
    generator_backend: Literal["auto", "native", "torch"] = "auto"
    """Code that generates on a CPU: native is a library in C++ that `make install` compiles, torch is PyTorch. auto
    means native where it works: on a processor with AVX2, if it was compiled, in float32 or int8."""
    generator_slots: int = Field(64, ge=1, le=4096)
    """Maximum number of sequences that one engine generates at once; further requests stay in the queue."""
    generate_queue_limit: int = Field(256, ge=1)
    """Maximum number of generate requests in the queue; the api rejects further ones with 429."""
    rate_limit_capacity: int = Field(5, ge=1)
    """Maximum number of generate requests that clients without a token may send in a burst, counted per address."""
    rate_limit_refill_seconds: float = Field(6.0, gt=0)
    """Seconds after which a client without a token may send one more generate request."""
    token_rate_limit_capacity: int = Field(0, ge=0)
    """Maximum number of generate requests that clients with the same token may send in a burst; 0 means no limit."""
    token_rate_limit_refill_seconds: float = Field(1.0, gt=0)
    """Seconds after which clients with the same token may send one more generate request, if there is a limit."""
    stream_max_length: int = Field(20_000, ge=100)
    """Approximate number of entries that are kept in each Redis stream."""
    stream_linger_seconds: float = Field(10.0, ge=0)
    """Time for which the api keeps reading an event stream from Redis after its last client has disconnected."""
    stream_client_seconds: float = Field(30.0, gt=0)
    """The api closes an event stream when its client has accepted no data for this time."""
    stop_budget_seconds: float = Field(
        12.0, gt=0, validation_alias=AliasChoices("TIDAL_STOP_BUDGET_SECONDS", "TIDAL_STOP_BUDGET")
    )
    """Maximum number of seconds that `tidal up` takes from Ctrl-C to its end. TIDAL_STOP_BUDGET is another name of the
    variable."""

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
        """Return the sources in order of precedence: arguments, environment, `.env`, variables without the prefix."""
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
        """Return (value, name, False) for one field; False means that the value is not JSON."""
        name = next((name for name, set_by in WITHOUT_PREFIX.items() if set_by == field_name), "")
        return self._found.get(name) or None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return {field: value} of the variables that are set."""
        return {field: value for name, field in WITHOUT_PREFIX.items() if (value := self._found.get(name))}


def _with_password(url: str, password: str, name: str) -> str:
    """Return the URL with the password, quoted. Raises ValueError if the URL already contains a different password."""
    parts = urlsplit(url)
    user, _, server = parts.netloc.rpartition("@")
    user, colon, inside = user.partition(":")
    if colon and unquote(inside) != password:
        variable = f"{PREFIX}{name.upper()}"
        raise ValueError(f"{variable} contains a password that differs from {variable}_PASSWORD; set only one of them")
    return urlunsplit(parts._replace(netloc=f"{user}:{quote(password, safe='')}@{server}"))


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Return the settings of this process. The first call reads them and warns of unknown and renamed variables.

    Raises ConfigError, which names the variable, for an invalid value.
    """
    settings = read_settings()
    in_file = {name.upper() for name in DotEnvSettingsSource(Settings).env_vars}
    warn_of_unknown(variables(), in_file=in_file)
    warn_of_renamed(RENAMED, in_file=in_file)
    return settings


def read_settings() -> Settings:
    """Read the settings from the environment. Raises ConfigError, which names the variable, for an invalid value."""
    try:
        return Settings()
    except ValidationError as error:
        raise ConfigError("; ".join(_finding(dict(item)) for item in error.errors(include_url=False))) from None


def variables() -> frozenset[str]:
    """Return the names of all TIDAL_ variables that set a field."""
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
