"""The health process: reaper, outbox relay, retention. Run it with `python -m services.health`."""
