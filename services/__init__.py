"""The services of Tidal, one package per process. A service imports `common`, but never another service."""
