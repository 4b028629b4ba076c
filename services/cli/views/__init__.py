"""Renders the terminal output of the commands in `services.cli.commands`."""
