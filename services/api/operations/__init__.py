"""What the endpoints do, one file per noun; plain functions over a session, the store or Redis."""
