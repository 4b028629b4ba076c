"""Routes that reject a JSON body with a repeated key, because Python's decoder would silently drop one of the values.

The endpoints whose bodies contain a configuration use such routes; repeated keys in YAML files are rejected as well.
`schemas` checks the meaning of the keys.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute

from common.files import shortened


class UniqueKeysRoute(APIRoute):
    """A route that answers 422 to a body with a repeated key; use it as `APIRouter(route_class=UniqueKeysRoute)`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return a handler that works like that of the base class, but answers 422 to a body with a repeated key."""
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return handler


class _StrictRequest(Request):
    async def json(self) -> Any:
        return json.loads(await self.body(), object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made:
            # This must be an HTTPException: FastAPI replaces any other exception by "error parsing the body".
            raise HTTPException(422, f"body: the key {shortened(key)} is given twice in one object; keep one of them")
        made[key] = value
    return made
