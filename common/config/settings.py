"""The environment of a process: addresses, folders, timers. Every name carries the prefix TIDAL_.

`get_settings()` reads the environment once per process (and `.env` in the working directory); tests build
`Settings(...)` themselves. The job configurations (what to train) are in `common.config.lm` and `common.config.rl`.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from common.config.origins import parse_origins

PROJECT_ROOT = Path(__file__).resolve().parent.parent.parent
"""Folder that holds configs/ and migrations/."""


def _env(name: str, *aliases: str) -> AliasChoices:
    return AliasChoices(f"TIDAL_{name}", *aliases)


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
    )

    database_url: SecretStr = SecretStr("postgresql+psycopg://tidal@127.0.0.1:5432/tidal")
    redis_url: SecretStr = Field(SecretStr("redis://127.0.0.1:6379/0"), validation_alias=_env("REDIS_URL", "REDIS_URL"))
    experiments_dir: Path = Field(Path("experiments"), validation_alias=_env("EXPERIMENTS_DIR", "EXPERIMENTS_DIR"))
    """The artifact store: one folder per experiment."""
    config_dir: Path = PROJECT_ROOT / "configs"
    """`configPath` and `rlConfigPath` of a request are looked up below this folder only."""
    data_dir: Path = Path("data")
    """Local corpora that a configuration may name, uploads (in `datasets/`) and the token cache (in `cache/`)."""
    dataset_max_mb: int = Field(4096, ge=1)
    """Largest dataset that may be uploaded, MiB of unpacked text."""

    host: str = Field("127.0.0.1", validation_alias=_env("HOST", "HOST"))
    port: int = Field(4400, ge=0, le=65535, validation_alias=_env("PORT", "PORT"))
    root_path: str = ""
    """Sub-path when a proxy serves the api below one."""
    auth_token: SecretStr | None = None
    """The administrator's token. Without it the api starts on loopback only and prints one it made."""
    require_auth_for_reads: bool = False
    allowed_origins: str = ""
    """Comma-separated origins (`https://host` or `https://host:port`) of web pages elsewhere that may call the api from
    a browser; `*`: any."""
    trusted_proxies: str = ""
    """Comma-separated addresses whose X-Forwarded-For is believed."""

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
    stream_client_seconds: float = Field(30.0, gt=0)
    """A stream client whose socket takes nothing for so long is closed."""
    stop_budget_seconds: float = Field(12.0, gt=0, validation_alias=_env("STOP_BUDGET"))
    """Local mode: from Ctrl-C to the last process gone."""

    @field_validator("allowed_origins")
    @classmethod
    def _are_origins(cls, given: str) -> str:
        return ",".join(parse_origins(given))


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()
