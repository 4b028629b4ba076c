"""The proxy of the fault tests can forward data, reset connections, discard data, and forward data again."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator

import pytest

from tests.faults.proxy import TcpProxy

pytestmark = pytest.mark.core_fault


class Echo(socketserver.BaseRequestHandler):
    """A server that sends all data that it receives back to the client."""

    def handle(self) -> None:
        while data := self.request.recv(1024):
            self.request.sendall(data)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore connection errors, because the tests reset connections."""


@pytest.fixture
def proxy() -> Iterator[TcpProxy]:
    with Server(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with TcpProxy.of_url(f"redis://user:secret@127.0.0.1:{server.server_address[1]}/0") as proxy:
            yield proxy
        server.shutdown()


def connect(proxy: TcpProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=10)


def echo(client: socket.socket, text: bytes) -> bytes:
    client.sendall(text)
    return client.recv(1024)


def test_it_passes_and_keeps_login_and_database_in_its_url(proxy: TcpProxy) -> None:
    assert proxy.url == f"redis://user:secret@127.0.0.1:{proxy.port}/0"
    with connect(proxy) as client:
        assert echo(client, b"one") == b"one"


def test_a_cut_resets_open_and_new_connections(proxy: TcpProxy) -> None:
    with connect(proxy) as client:
        assert echo(client, b"one") == b"one"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            echo(client, b"two")
    with pytest.raises(OSError), connect(proxy) as client:
        assert echo(client, b"three") == b"three"
    proxy.heal()
    with connect(proxy) as client:
        assert echo(client, b"four") == b"four"


def test_silence_answers_nothing_and_healing_resets_what_lost_bytes(proxy: TcpProxy) -> None:
    with connect(proxy) as lossy, connect(proxy) as idle:
        assert (echo(lossy, b"one"), echo(idle, b"one")) == (b"one", b"one")
        proxy.silence()
        lossy.settimeout(0.3)
        with pytest.raises(TimeoutError):
            echo(lossy, b"two")
        lossy.settimeout(10)
        proxy.heal()
        with pytest.raises(ConnectionResetError):
            lossy.recv(1024)
        assert echo(idle, b"three") == b"three", "a connection that lost nothing goes on"
