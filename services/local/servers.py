"""The embedded servers: PostgreSQL and Valkey as child processes whose data is in a folder.

server = PostgresServer(Path(".tidal/postgres"))
server.start()  # server.url
server.stop()
"""

from services.local.postgres import PostgresServer
from services.local.server import EmbeddedServer
from services.local.server_files import free_port, port_is_free
from services.local.valkey import ValkeyServer

__all__ = ["EmbeddedServer", "PostgresServer", "ValkeyServer", "free_port", "port_is_free"]
