"""What the parts of Tidal and its clients share. Stands alone: imports nothing of `common` or `services`."""
