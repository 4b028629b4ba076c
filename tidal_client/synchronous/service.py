"""Methods of `Client` for the server: health, session, disk usage, configuration files, metrics."""

# Generated from `tidal_client/asynchronous` by `python -m scripts.sync_client`; change it there.
from __future__ import annotations

from ..requests import file_path
from ..wire.config_file import ConfigFile, ConfigFileContent, ConfigFileList
from ..wire.health import Alive, Ready
from ..wire.session import Session
from ..wire.storage import Storage
from .connection import ApiConnection


class ServiceCalls(ApiConnection):
    """Methods of `Client` for the server."""

    def alive(self) -> Alive:
        """Return the version of the server, if it replies at all."""
        return self._get(Alive, "/healthz")

    def ready(self) -> Ready:
        """Return the state of the parts that the api depends on. Raises UnavailableError if a required one is missing;
        its `errors` name the parts."""
        return self._get(Ready, "/readyz")

    def session(self) -> Session:
        """Return the name and the scopes of this client's token."""
        return self._get(Session, "/api/session")

    def storage(self) -> Storage:
        """Return how much of the disk experiments and corpora use, and how much is free."""
        return self._get(Storage, "/api/storage")

    def configs(self) -> list[ConfigFile]:
        """Return the configuration files on the server, sorted by name."""
        return (self._get(ConfigFileList, "/api/configs")).configs

    def config(self, file: str) -> ConfigFileContent:
        """Return the text of a configuration file and the configuration that results from it. Raises NotFoundError."""
        return self._get(ConfigFileContent, f"/api/configs/{file_path(file)}")

    def prometheus_metrics(self) -> str:
        """Return the metrics of the server in the text format of Prometheus."""
        return (self._request("GET", "/metrics")).text
