"""Child processes of workers and generators: socket, messages, lifeline and the clock of a lease. No torch."""
