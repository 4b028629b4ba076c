"""Methods of `AsyncClient` for the server: health, session, disk usage, configuration files, metrics."""

from __future__ import annotations

from ..requests import file_path
from ..wire.config_file import ConfigFile, ConfigFileContent, ConfigFileList
from ..wire.health import Alive, Ready
from ..wire.session import Session
from ..wire.storage import Storage
from .connection import AsyncApiConnection


class AsyncServiceCalls(AsyncApiConnection):
    """Methods of `AsyncClient` for the server."""

    async def alive(self) -> Alive:
        """Return the version of the server, if it replies at all."""
        return await self._get(Alive, "/healthz")

    async def ready(self) -> Ready:
        """Return the state of the parts that the api depends on. Raises UnavailableError if a required one is missing;
        its `errors` name the parts."""
        return await self._get(Ready, "/readyz")

    async def session(self) -> Session:
        """Return the name and the scopes of this client's token."""
        return await self._get(Session, "/api/session")

    async def storage(self) -> Storage:
        """Return how much of the disk experiments and corpora use, and how much is free."""
        return await self._get(Storage, "/api/storage")

    async def configs(self) -> list[ConfigFile]:
        """Return the configuration files on the server, sorted by name."""
        return (await self._get(ConfigFileList, "/api/configs")).configs

    async def config(self, file: str) -> ConfigFileContent:
        """Return the text of a configuration file and the configuration that results from it. Raises NotFoundError."""
        return await self._get(ConfigFileContent, f"/api/configs/{file_path(file)}")

    async def prometheus_metrics(self) -> str:
        """Return the metrics of the server in the text format of Prometheus."""
        return (await self._request("GET", "/metrics")).text
