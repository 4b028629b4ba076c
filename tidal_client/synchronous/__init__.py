"""The synchronous client, generated from the package `asynchronous`."""
