"""The health process, `python -m services.health`: the reaper, the outbox relay and the retention of files."""
