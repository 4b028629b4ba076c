"""Access checks that do not depend on a web framework: host names, trusted proxies, and delays after wrong secrets.

The api and Flower use different web frameworks and share this package. What a token allows is in `services.api.auth`.
"""

from common.access.hosts import KnownHosts, parse_hosts
from common.access.proxies import TrustedProxies
from common.access.rejections import Rejection, Rejections, address_group

__all__ = ["KnownHosts", "Rejection", "Rejections", "TrustedProxies", "address_group", "parse_hosts"]
