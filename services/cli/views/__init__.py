"""The terminal output of the commands. Commands themselves are in `commands`."""
