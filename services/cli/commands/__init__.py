"""The subcommands of `tidal`. Each module defines one command or one group of commands."""
