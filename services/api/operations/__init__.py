"""The operations behind the endpoints, one file per resource.

These functions use a database session, the store or Redis.
"""
