"""Uploads of datasets, and what they leave on the disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx

from tests.integration.api.conftest import Api

TEXT = "<|endoftext|>".join(f"The {n}th tale of the tide." for n in range(100)).encode()


def upload(api: Api, data: bytes | Iterator[bytes] = TEXT, name: str = "tales.txt", **query: str) -> httpx.Response:
    return api.admin.post("/api/datasets", params={"name": name, **query}, content=data)


def created(api: Api, *args: Any, **kwargs: Any) -> dict[str, Any]:
    reply = upload(api, *args, **kwargs)
    assert reply.status_code == 201, reply.text
    return dict(reply.json())


def folders(api: Api) -> list[str]:
    root = api.settings.data_dir / "datasets"
    return sorted(path.name for path in root.iterdir() if path.is_dir()) if root.exists() else []
