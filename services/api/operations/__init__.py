"""The operations behind the endpoints, one file per resource.

Each operation uses a database session, the artifact store or Redis.
"""
