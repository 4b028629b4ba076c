"""The modules that use Redis: key names, clients, live feed, heartbeats, notifications, and generation messages."""
