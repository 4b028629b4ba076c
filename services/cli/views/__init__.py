"""What the commands show on a terminal. No command is defined here."""
