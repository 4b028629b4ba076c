"""PostgreSQL and Valkey as plain child processes of a folder.

server = PostgresServer(Path(".tidal/postgres"))
server.start()  # server.url
server.stop()
"""

from services.local.postgres import PostgresServer
from services.local.server import Server
from services.local.server_files import free_port, port_is_free
from services.local.valkey import ValkeyServer

__all__ = ["PostgresServer", "Server", "ValkeyServer", "free_port", "port_is_free"]
