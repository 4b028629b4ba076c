"""Selects the environment variables that a Tidal process passes to the processes it starts.

Only variables on an allow-list are passed. Therefore cloud credentials and tokens of other programs in the operator's
environment reach neither Tidal's processes nor PostgreSQL and Valkey, which may run as another user. The list contains
all TIDAL_ variables that Tidal reads, except secrets. A secret is passed only to a process for which the caller names
it. TIDAL_PASS_ENVIRONMENT adds further names. The URL of Redis reaches a trainer in its first message, and the
generator's engine as a variable.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from common.config.compute_environment import with_compute_environment
from common.config.environment import INTERNAL_VARIABLES, OTHER_VARIABLES, PASS_ENVIRONMENT, TEST_PREFIX
from common.config.settings import variables

TOKEN_VARIABLES: Final = frozenset({"TIDAL_AUTH_TOKEN"})
FLOWER_VARIABLES: Final = frozenset({"TIDAL_FLOWER_PASSWORD"})
DATABASE_VARIABLES: Final = frozenset({"TIDAL_DATABASE_URL", "TIDAL_DATABASE_URL_PASSWORD", "PGPASSWORD"})
REDIS_VARIABLES: Final = frozenset({"TIDAL_REDIS_URL", "TIDAL_REDIS_URL_PASSWORD"})
SECRET_VARIABLES: Final = (
    TOKEN_VARIABLES
    | FLOWER_VARIABLES
    | DATABASE_VARIABLES
    | REDIS_VARIABLES
    | {"TIDAL_POSTGRES_PASSWORD", "TIDAL_REDIS_PASSWORD"}
)
"""Variables that a child process receives only if the caller of `own_environment` names them."""

# fmt: off
_ALWAYS_PASSED: Final = frozenset({
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "COLUMNS", "NO_COLOR", "FORCE_COLOR", "LANG", "LANGUAGE", "TZ",
    "TMPDIR", "TEMP", "TMP", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "LD_LIBRARY_PATH", "LD_PRELOAD", "CC", "CXX",
    "LIBRARY_PATH", "CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "CONDA_PREFIX",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
})
_PASSED_TO_SERVERS: Final = frozenset({"PATH", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH"})
_COMPUTING: Final = (
    "LC_", "PYTHON", "OMP_", "MKL_", "KMP_", "GOMP_", "OPENBLAS_", "NUMEXPR_", "VECLIB_", "ONEDNN_", "DNNL_", "MALLOC_",
    "GLIBC_TUNABLES", "CUDA_", "CUBLAS_", "CUDNN_", "NVIDIA_", "NCCL_", "GLOO_", "HIP_", "HSA_", "ROCM_", "ROCR_",
    "MIOPEN_", "GPU_", "TORCH", "PYTORCH_", "TRITON_", "TOKENIZERS_", "DYLD_", "NIX_",
)
# fmt: on
"""Prefixes of variables that configure computing libraries and the interpreter."""
_NETWORK: Final = frozenset({"http_proxy", "https_proxy", "all_proxy", "no_proxy"})
_HUB: Final = ("HF_", "HUGGINGFACE_", "HUGGING_FACE_", "TRANSFORMERS_")
"""Prefixes of the variables of the Hugging Face Hub. One of these holds the token for gated datasets."""
_LIBPQ: Final = "PG"
"""Prefix of the variables that PostgreSQL's client library reads."""


def own_environment(
    environ: Mapping[str, str], *, secrets: Collection[str] = (), hub: bool = False, database: bool = False
) -> dict[str, str]:
    """Return the variables of `environ` that a Tidal process needs.

    `secrets` are the names from SECRET_VARIABLES that the process may read. `hub` adds the variables for downloads from
    the Hugging Face Hub, `database` those of PostgreSQL's client library.
    """
    ours = (variables() | OTHER_VARIABLES.keys() | INTERNAL_VARIABLES) - SECRET_VARIABLES
    passed = {name.strip() for name in environ.get(PASS_ENVIRONMENT, "").split(",")} - SECRET_VARIABLES

    def wanted(name: str) -> bool:
        return (
            name in _ALWAYS_PASSED
            or name in ours
            or name in secrets
            or name in passed
            or name.startswith((*_COMPUTING, TEST_PREFIX))
            or (hub and (name.lower() in _NETWORK or name.startswith(_HUB)))
            or (database and name.startswith(_LIBPQ))
        )

    return {name: value for name, value in environ.items() if wanted(name)}


def server_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for PostgreSQL and Valkey, without TIDAL_ ones: the servers may run as another user."""
    return {name: value for name, value in environ.items() if name in _PASSED_TO_SERVERS or name.startswith("LC_")}


def child_environment(environ: Mapping[str, str], *, hub: bool = True) -> dict[str, str]:
    """Return the variables for a trainer or engine: `own_environment` without secrets, and `COMPUTE_ENVIRONMENT`."""
    return with_compute_environment(own_environment(environ, hub=hub))
