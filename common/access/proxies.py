"""Determines the client's address from X-Forwarded-For if the connection comes from a trusted proxy.

The setting TIDAL_TRUSTED_PROXIES lists the trusted proxies. Flower uses this module; the api uses uvicorn, which
interprets the setting in the same way.
"""

from __future__ import annotations

import ipaddress

ANY = "*"


class TrustedProxies:
    """The trusted addresses and networks of a comma-separated list; `*` trusts every address."""

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
        """Return the client's address: the last address in the header that is not a trusted proxy, otherwise `peer`.

        If every address is trusted (`*`), return the first address in the header. If `peer` is not trusted, return
        `peer`.
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
