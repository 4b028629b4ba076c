"""Jobs that are never lost and never run twice: state machine, queue, lease, reaper, outbox."""
