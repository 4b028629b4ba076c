"""Determines the client's address from X-Forwarded-For when the peer is one of TIDAL_TRUSTED_PROXIES.

The api uses uvicorn for this, which interprets the setting in the same way; this module serves the other servers.
"""

from __future__ import annotations

import ipaddress

ANY = "*"


class TrustedProxies:
    """The addresses and networks of a comma-separated list; `*` stands for every address."""

    def __init__(self, text: str) -> None:
        parts = [part.strip() for part in text.split(",") if part.strip()]
        self._any = ANY in parts
        self._networks = [network for part in parts if (network := _network(part)) is not None]

    def trusts(self, address: str) -> bool:
        """Return whether the X-Forwarded-For header of a peer with this address is trusted."""
        if self._any:
            return True
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._networks if network.version == parsed.version)

    def client(self, peer: str, forwarded_for: str) -> str:
        """Return the client's address: the last one in the header that is not a trusted proxy, or else the peer's.

        If every address is trusted (`*`), it is the first one in the header.
        """
        if not self.trusts(peer):
            return peer
        addresses = [part.strip() for part in forwarded_for.split(",") if part.strip()]
        if self._any:
            return addresses[0] if addresses else peer
        return next((address for address in reversed(addresses) if not self.trusts(address)), peer)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
