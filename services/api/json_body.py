"""Routes whose JSON body may give no key twice: of two values one would be dropped without a word.

For bodies that carry a configuration, where YAML files refuse the same. Leaves out what the keys mean (`schemas`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute

from common.files import shortened


class UniqueKeysRoute(APIRoute):
    """`APIRouter(route_class=OneValuePerKeyRoute)`: 422 for a body that repeats a key."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of the base class, with a request that reads its body so."""
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
            # FastAPI lets this one exception through; any other would become "error parsing the body".
            raise HTTPException(422, f"body: the key {shortened(key)} is given twice in one object; keep one of them")
        made[key] = value
    return made
