"""The subcommands of `tidal`, one module each."""
