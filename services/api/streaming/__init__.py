"""Live streams: Redis streams to server-sent events, with one reader per stream and process."""
