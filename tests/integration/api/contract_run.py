"""Runs the complete contract test, which takes minutes: `make contract` or this module with `python -m`.

It starts PostgreSQL, Valkey, the api and a real generator. It runs the test with the token, without a token, and
without a token while reads also require one, and prints a table of statuses per operation. The exit status is 1 if a
reply is a server error or has a status that the OpenAPI document does not list, if an operation other than a stream
never succeeds, or if fewer than 2,000 requests were sent. Rate limits are switched off.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from common.config import Settings
from common.db import upgrade
from services.local.servers import PostgresServer, ValkeyServer
from tests.integration.api.conftest import running
from tests.integration.api.contract import Outcome, run
from tests.integration.api.contract_resources import Resources
from tests.integration.api.openai_fixtures import Generator

MANY = 1_000_000
LEAST_CASES = 2000


def main() -> int:
    """Run the contract test and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--examples", type=int, default=10, help="number of generated requests per operation in each of the three runs"
    )
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args()
    outcomes: dict[str, Outcome] = {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        postgres, valkey = PostgresServer(home / "postgres"), ValkeyServer(home / "valkey")
        postgres.start()
        valkey.start()
        try:
            upgrade(postgres.url)
            (home / "configs").mkdir()
            (home / "configs" / "base_config.yaml").write_text("data: {source: 'builtin:stories'}\n")
            settings = Settings(
                _env_file=None,
                database_url=postgres.url,
                redis_url=valkey.url,
                experiments_dir=home / "experiments",
                data_dir=home / "data",
                config_dir=home / "configs",
                rate_limit_capacity=MANY,
            )
            generator = Generator(valkey.url, settings.experiments_dir)
            with running(settings) as api:
                resources = Resources(api)
                for name, token in (("with the token", True), ("without a token", False)):
                    outcomes[name] = run(
                        api, resources, token=token, examples=wanted.examples, coverage=True, seed=wanted.seed
                    )
                    _print(name, outcomes[name])
            with running(settings, require_auth_for_reads=True) as api:
                name = "without a token, reads closed"
                resources.api = api
                outcomes[name] = run(api, resources, token=False, examples=5, coverage=False, seed=wanted.seed)
                _print(name, outcomes[name])
            generator.close()
        finally:
            valkey.remove()
            postgres.remove()
    cases = sum(outcome.cases for outcome in outcomes.values())
    never = [label for label in outcomes["with the token"].never_reached if not label.endswith("/stream")]
    failures = sum(len(outcome.failures) for outcome in outcomes.values())
    print(
        f"{cases} requests in total, {failures} failures; operations that never succeeded: {', '.join(never) or 'none'}"
    )
    return int(bool(failures or never or cases < LEAST_CASES))


def _print(name: str, outcome: Outcome) -> None:
    print("", name, outcome.table(), *outcome.failures, sep="\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
