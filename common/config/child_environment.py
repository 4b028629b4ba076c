"""The environment that a process of ours gets from the one that starts it: what it needs, and no secret of another's.

A list of what is passed on, not of what is held back: whatever else lies in the environment of an operator (keys of a
cloud, tokens of other programs) reaches no process of ours, and none of a server that runs as another user. Names with
TIDAL_ that Tidal reads are passed, except the secrets, each of which goes only where it is named. Further names:
TIDAL_PASS_ENVIRONMENT. Trainers get the address of Redis in their first message, the generator's engine as a variable.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from common.config.compute_environment import with_compute_environment
from common.config.environment import INTERNAL_VARIABLES, OF_TESTS, OTHER_VARIABLES, PASS
from common.config.settings import variables

TOKEN: Final = frozenset({"TIDAL_AUTH_TOKEN"})
FLOWER: Final = frozenset({"TIDAL_FLOWER_PASSWORD"})
DATABASE: Final = frozenset({"TIDAL_DATABASE_URL", "TIDAL_DATABASE_URL_PASSWORD", "PGPASSWORD"})
REDIS: Final = frozenset({"TIDAL_REDIS_URL", "TIDAL_REDIS_URL_PASSWORD"})
SECRETS: Final = TOKEN | FLOWER | DATABASE | REDIS | {"TIDAL_POSTGRES_PASSWORD", "TIDAL_REDIS_PASSWORD"}
"""What a child gets only where its starter names it."""

# fmt: off
_EVERYBODY: Final = frozenset({
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "COLUMNS", "NO_COLOR", "FORCE_COLOR", "LANG", "LANGUAGE", "TZ",
    "TMPDIR", "TEMP", "TMP", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "LD_LIBRARY_PATH", "LD_PRELOAD", "CC", "CXX",
    "LIBRARY_PATH", "CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "CONDA_PREFIX",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
})
_SERVERS: Final = frozenset({"PATH", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH"})
_COMPUTING: Final = (
    "LC_", "PYTHON", "OMP_", "MKL_", "KMP_", "GOMP_", "OPENBLAS_", "NUMEXPR_", "VECLIB_", "ONEDNN_", "DNNL_", "MALLOC_",
    "GLIBC_TUNABLES", "CUDA_", "CUBLAS_", "CUDNN_", "NVIDIA_", "NCCL_", "GLOO_", "HIP_", "HSA_", "ROCM_", "ROCR_",
    "MIOPEN_", "GPU_", "TORCH", "PYTORCH_", "TRITON_", "TOKENIZERS_", "DYLD_", "NIX_",
)
# fmt: on
"""Beginnings of names that say how to compute."""
_NETWORK: Final = frozenset({"http_proxy", "https_proxy", "all_proxy", "no_proxy"})
_HUB: Final = ("HF_", "HUGGINGFACE_", "HUGGING_FACE_", "TRANSFORMERS_")
"""With its token, which a gated corpus needs."""
_LIBPQ: Final = "PG"
"""Beginning of the names that PostgreSQL's client library reads."""


def own_environment(
    environ: Mapping[str, str], *, secrets: Collection[str] = (), hub: bool = False, database: bool = False
) -> dict[str, str]:
    """What a process of ours needs of `environ`.

    `secrets` are the names among SECRETS that it may know, `hub` whether it fetches corpora, `database` whether it
    connects to PostgreSQL, whose client library has variables of its own.
    """
    ours = (variables() | OTHER_VARIABLES.keys() | INTERNAL_VARIABLES) - SECRETS
    passed = {name.strip() for name in environ.get(PASS, "").split(",")} - SECRETS

    def wanted(name: str) -> bool:
        return (
            name in _EVERYBODY
            or name in ours
            or name in secrets
            or name in passed
            or name.startswith((*_COMPUTING, OF_TESTS))
            or (hub and (name.lower() in _NETWORK or name.startswith(_HUB)))
            or (database and name.startswith(_LIBPQ))
        )

    return {name: value for name, value in environ.items() if wanted(name)}


def server_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What PostgreSQL and Valkey need: nothing of ours, and they may run as another user."""
    return {name: value for name, value in environ.items() if name in _SERVERS or name.startswith("LC_")}


def child_environment(environ: Mapping[str, str], *, hub: bool = True) -> dict[str, str]:
    """Of a process that computes: no secret of the servers, and `common.config.compute_environment`."""
    return with_compute_environment(own_environment(environ, hub=hub))
