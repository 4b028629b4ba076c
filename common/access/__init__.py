"""Access checks that do not depend on a web framework: host names, trusted proxies, tokens, delays after wrong secrets.

The api and Flower use different web frameworks and share this package. What a token allows is in `services.api.auth`.
"""

from common.access.actor import ADMINISTRATOR, Actor
from common.access.hosts import KnownHosts, parse_hosts
from common.access.proxies import TrustedProxies
from common.access.rejections import Rejection, Rejections, address_group
from common.access.tokens import TOKEN_PREFIX, is_well_formed, make_token, token_hash

__all__ = [
    "ADMINISTRATOR",
    "TOKEN_PREFIX",
    "Actor",
    "KnownHosts",
    "Rejection",
    "Rejections",
    "TrustedProxies",
    "address_group",
    "is_well_formed",
    "make_token",
    "parse_hosts",
    "token_hash",
]
