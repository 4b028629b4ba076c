"""Flower over a real broker: up, closed without a login, open with it."""

from __future__ import annotations

import httpx

from services.local.servers import free_port
from tests.integration.worker.fleet import Fleet


def test_flower_answers_only_with_the_login(fleet: Fleet) -> None:
    port = free_port()
    fleet.start("flower", "services.worker.flower", TIDAL_FLOWER_PORT=str(port), TIDAL_FLOWER_PASSWORD="pw")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:

        def up() -> bool:
            try:
                return client.get("/healthcheck").status_code == 200
            except httpx.TransportError:
                return False

        fleet.wait_for(up, "Flower to answer", 60)
        assert client.get("/workers").status_code == 401
        assert client.get("/workers", auth=("tidal", "wrong")).status_code == 401
        assert client.get("/workers", auth=("tidal", "pw")).status_code == 200
        sent = client.post(
            "/api/task/send-task/tidal.training.doorbell", auth=("tidal", "pw"), json={"args": ["training"]}
        )
        assert sent.status_code in (403, 404)
