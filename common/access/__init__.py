"""Who may ask: which names a server answers to, whose forwarded address counts, how wrong secrets are slowed down.

Used by the api and by Flower, which are different kinds of servers. Leaves out HTTP itself and what a token allows
(`services.api.auth`).
"""

from common.access.hosts import KnownHosts, parse_hosts
from common.access.proxies import TrustedProxies
from common.access.rejections import Rejection, Rejections, address_group

__all__ = ["KnownHosts", "Rejection", "Rejections", "TrustedProxies", "address_group", "parse_hosts"]
