"""Fixtures of the browser tests: one real stack and one Chromium for all tests.

If no Chromium is installed, the tests are skipped, or fail if `TIDAL_REQUIRE_BROWSER=1` is set, as `.ci/run` does.
Screenshots are written to `artefacts/browser/`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from sqlalchemy.orm import Session

from common.db import make_engine
from scripts.chromium import find
from services.local.servers import PostgresServer, ValkeyServer
from tests.browser.seed import add_experiment
from tests.integration.acceptance.stack import TINY_LM, TOKEN, Stack
from tests.integration.conftest import database_template, new_database, postgres, valkey
from tests.paths import ROOT

__all__ = ["database_template", "postgres", "valkey"]

SCREENSHOTS = ROOT / "artefacts" / "browser"
PATIENCE_MS = 60_000
"""Longest wait for a change of a page, in ms. It is long, because six processes and a browser run on two busy cores."""
LONG_NAME = "Longshore" * 20
expect.set_options(timeout=PATIENCE_MS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Set the timeout of browser tests to 900 s, because they start a stack and train a model on a busy machine."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(900))


class Site(Stack):
    """A running stack that contains experiments."""

    first: str
    """Id of the experiment of a pretraining that has really run and completed."""
    seeded: dict[str, str]
    """{name: id} of the experiments whose data was written by `add_experiment` and not by a training."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def view(self, experiment_id: str, tab: str = "") -> str:
        """Return the URL of the page of an experiment."""
        return f"{self.url}#/experiments/{experiment_id}{f'?tab={tab}' if tab else ''}"


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    program = find()
    if program is None:
        if os.environ.get("TIDAL_REQUIRE_BROWSER"):
            pytest.fail("no Chromium was found, and TIDAL_REQUIRE_BROWSER is set; see scripts/chromium.py")
        pytest.skip("no Chromium on this machine")
    with sync_playwright() as playwright:
        # In containers, processes run as root and /dev/shm is small; Chromium needs these options there.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def site(
    chromium: Browser,
    postgres: PostgresServer,
    valkey: ValkeyServer,
    database_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """Start api, health, worker and generator; create experiments, one of them by a real pretraining."""
    with redis.Redis.from_url(valkey.url, socket_timeout=5) as client:
        client.flushall()
    databases = new_database(postgres, database_template)
    url = next(databases)
    with Site(url, valkey.url, tmp_path_factory.mktemp("site")) as stack:
        stack.start("worker", "worker")
        stack.start("generator", "generator")
        stack.start_control_plane()
        job = stack.submit(config=TINY_LM, name="Tide pool", tags=["real"])
        stack.first = job["experimentId"]
        folder = stack.folder / "experiments"
        engine = make_engine(url)
        with Session(engine) as session, session.begin():
            stack.seeded = {
                name: add_experiment(session, folder, name, kind, points, number=number)
                for number, (name, kind, points) in enumerate(
                    [
                        ("Slow cosine", "lm", 1500),
                        ("Fast cosine", "lm", 1500),
                        ("Helmsman", "rl", 120),
                        ("Driftwood", "lm", 20),
                        (LONG_NAME, "lm", 6000),
                    ],
                    start=1,
                )
            }
        engine.dispose()
        stack.wait_status(job["id"], "completed", 240)
        yield stack
    next(databases, None)


class Visit:
    """A page in the browser.

    `errors` collects exceptions, violations of the content security policy, and requests to other hosts.
    """

    def __init__(self, context: BrowserContext, home: str) -> None:
        self.page = context.new_page()
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda entry: self.errors.append(entry.text) if "Security" in entry.text else None)
        self.page.on("request", lambda r: None if r.url.startswith((home, "blob:")) else self.errors.append(r.url))


@pytest.fixture
def visit(chromium: Browser, site: Site) -> Iterator[Callable[..., Page]]:
    """Return a function that opens a page: `visit(address, signed_in=…, width=…, theme=…)`.

    At the end of the test, assert that no page has thrown an exception, violated the content security policy, or sent a
    request to another host.
    """
    contexts: list[BrowserContext] = []
    visits: list[Visit] = []

    def open_page(
        address: str = "",
        *,
        signed_in: bool = True,
        token: str = TOKEN,
        width: int = 1280,
        theme: str = "light",
        zone: str | None = None,
    ) -> Page:
        scheme = "dark" if theme == "dark" else "light"
        context = chromium.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            reduced_motion="reduce",
            timezone_id=zone,
        )
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        if signed_in:
            context.add_init_script(f"sessionStorage.setItem('tidal.token', '{token}')")
        where = address if address.startswith("http") else site.url + address
        visits.append(Visit(context, where.split("#")[0]))
        page = visits[-1].page
        page.goto(where)
        return page

    yield open_page
    found = [error for one in visits for error in one.errors]
    for context in contexts:
        context.close()
    assert found == []


@pytest.fixture
def closed_site(
    chromium: Browser, postgres: PostgresServer, valkey: ValkeyServer, database_template: str, tmp_path: Path
) -> Iterator[Site]:
    """Start an api that has no experiments and that requires a token even for reading."""
    databases = new_database(postgres, database_template)
    with Site(next(databases), valkey.url, tmp_path) as stack:
        stack.environment["TIDAL_REQUIRE_AUTH_FOR_READS"] = "true"
        stack.start_control_plane()
        yield stack
    next(databases, None)


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Return the folder to which screenshots are written."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    return SCREENSHOTS
