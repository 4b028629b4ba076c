"""Sends the entries of Redis streams to clients as server-sent events. A process has one reader per stream."""
