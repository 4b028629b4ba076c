"""Several windows of one browser share one connection for live streams. No window loses or repeats an event."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import redis
from playwright.sync_api import Browser, Page

from common.redis.keys import EPOCH, experiment_stream
from services.local.servers import ValkeyServer
from tests.browser.conftest import LONG_NAME, Site

Visit = Callable[..., Page]
WINDOWS = 8
NO_WORKER = """window.SharedWorker = class {
  constructor() {
    this.port = { postMessage() {} };
    setTimeout(() => this.onerror());
  }
};"""
FOLLOW = """async (topic) => {
  const { follow } = await import(document.querySelector('link[href$="js/lib/sse.js"]').href);
  window.seen = [];
  const onEvent = (name, data) => {
    if (name === "metrics") window.seen.push(data.n);
    if (name === "reset") window.seen = [name];
  };
  follow(`api/${topic}/stream`, { since: "0", onEvent });
}"""


def test_eight_windows_share_one_stream_and_each_gets_every_event_once(
    site: Site, visit: Visit, chromium: Browser, valkey: ValkeyServer
) -> None:
    first = visit("#/")
    context = first.context
    ids = [site.seeded[name] for name in ("Slow cosine", "Fast cosine", "Helmsman", LONG_NAME)] + [site.first]
    addresses = [site.view(one) for one in ids] + [f"{site.url}#/queue", f"{site.url}#/datasets"]
    pages = [first]
    for address in addresses[: WINDOWS - 1]:
        pages.append(context.new_page())
        pages[-1].goto(address)
    for page in pages:
        page.get_by_role("heading", level=1).wait_for()

    def connections() -> int:
        found = re.search(r"^tidal_sse_clients (\d+)", site.http.get("/metrics").text, re.MULTILINE)
        return int(found[1]) if found else -1

    site.wait_for("one connection for all windows", lambda: connections() == 1, 30)
    # A browser without SharedWorker opens one connection per window.
    lone = chromium.new_context()
    lone.add_init_script(NO_WORKER)
    pages.append(lone.new_page())
    pages[-1].goto(site.url)
    topic = f"experiments/{ids[0]}"
    for page in pages:
        page.evaluate(FOLLOW, topic)
    sent = 0
    with redis.Redis.from_url(valkey.url, decode_responses=True) as client:

        def send(count: int) -> list[int]:
            nonlocal sent
            for _ in range(count):
                sent += 1
                data = json.dumps({"n": sent, "points": []})
                client.xadd(experiment_stream(ids[0]), {"event": "metrics", "data": data})
            return list(range(1, sent + 1))

        def all_received(wanted: list[Any]) -> None:
            for page in pages:
                page.wait_for_function("count => window.seen.length >= count", arg=len(wanted))
                assert page.evaluate("window.seen") == wanted

        all_received(send(20))
        # The api notices a little later that a browser has replaced its connection by a connection for more topics.
        site.wait_for("one connection for each browser", lambda: connections() == 2, 30)
        for page in pages:
            assert page.evaluate("fetch('api/session').then((reply) => reply.status)") == 200
        # One more window is opened, one is suspended for a while, and the first one is closed.
        pages[3].evaluate("window.dispatchEvent(new Event('pagehide'))")
        late = context.new_page()
        late.goto(site.url)
        late.evaluate(FOLLOW, topic)
        first.close()
        pages.remove(first)
        pages.append(late)
        wanted = send(20)
        late.wait_for_function("() => window.seen.length >= 40")
        assert len(pages[3 - 1].evaluate("window.seen")) == 20
        pages[3 - 1].evaluate("window.dispatchEvent(new Event('pageshow'))")
        all_received(wanted)
        # If the epoch key is missing in Redis, the api concludes that Redis was emptied, and resets every stream. After
        # the event `reset`, each window still receives new events.
        client.delete(EPOCH)
        for page in pages:
            page.wait_for_function("() => window.seen[0] === 'reset'")
        all_received(["reset", *send(5)[-5:]])
        assert connections() == 2
        client.delete(experiment_stream(ids[0]))
    lone.close()
