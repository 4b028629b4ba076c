"""Child processes of workers and generators: launch, socket, messages, lifeline and the clock of a lease. No torch."""
