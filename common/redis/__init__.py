"""Everything that uses Redis: key names, clients, live feed, heartbeats, notifications, and generation messages."""
