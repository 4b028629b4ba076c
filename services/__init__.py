"""The processes of Tidal, one package each; a service imports `common`, never another service."""
