"""Live streams: send the entries of Redis streams as server-sent events, with one reader per stream and process."""
