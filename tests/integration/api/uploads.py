"""Helpers that upload datasets over HTTP and list the folders of datasets on the disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx

from tests.integration.api.conftest import Api

TEXT = "<|endoftext|>".join(f"The {n}th tale of the tide." for n in range(100)).encode()


def upload(api: Api, data: bytes | Iterator[bytes] = TEXT, name: str = "tales.txt", **query: str) -> httpx.Response:
    """Upload a dataset and return the response, whatever its status."""
    return api.admin.post("/api/datasets", params={"name": name, **query}, content=data)


def created(api: Api, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Upload a dataset with the arguments of `upload`, assert that it was created, and return it."""
    reply = upload(api, *args, **kwargs)
    assert reply.status_code == 201, reply.text
    return dict(reply.json())


def folders(api: Api) -> list[str]:
    """Return the names of the folders that contain datasets, sorted."""
    root = api.settings.data_dir / "datasets"
    return sorted(path.name for path in root.iterdir() if path.is_dir()) if root.exists() else []
