"""Terminal output of the commands, which are in `services.cli.commands`."""
