"""The operations of the endpoints, one file per resource: functions that use a database session, the store or Redis."""
