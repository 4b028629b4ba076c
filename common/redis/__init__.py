"""Redis: key names, clients, live feed, heartbeats, notifications, and the messages between API and generator."""
