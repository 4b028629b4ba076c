"""The asynchronous client. `python -m scripts.sync_client` generates the package `synchronous` from it."""
