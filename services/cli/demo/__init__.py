"""The command `tidal demo`."""
