"""Whose X-Forwarded-For and X-Forwarded-Proto count: the proxies of TIDAL_TRUSTED_PROXIES.

The api leaves this to uvicorn, which reads the same setting in the same way; here it is for servers of other kinds.
"""

from __future__ import annotations

import ipaddress

ANY = "*"


class TrustedProxies:
    """Addresses and networks of a comma-separated list; `*` is every address."""

    def __init__(self, text: str) -> None:
        parts = [part.strip() for part in text.split(",") if part.strip()]
        self._any = ANY in parts
        self._networks = [network for part in parts if (network := _network(part)) is not None]

    def trusts(self, address: str) -> bool:
        """Whether a peer with this address may say for whom it asks."""
        if self._any:
            return True
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._networks if network.version == parsed.version)

    def client(self, peer: str, forwarded_for: str) -> str:
        """The address that asks: the last one of the header that is no proxy of ours, or the peer itself."""
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
