"""Access checks that do not depend on HTTP: host names, trusted proxies, and delays after wrong secrets.

The api and Flower, which are built on different web frameworks, share them. Leaves out HTTP itself and what a token
allows (`services.api.auth`).
"""

from common.access.hosts import KnownHosts, parse_hosts
from common.access.proxies import TrustedProxies
from common.access.rejections import Rejection, Rejections, address_group

__all__ = ["KnownHosts", "Rejection", "Rejections", "TrustedProxies", "address_group", "parse_hosts"]
