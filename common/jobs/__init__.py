"""Jobs: state machine, queue, leases, reaper and outbox. No job is lost, and no job runs twice at the same time."""
