"""Host names, trusted proxies and the counting of rejections, tested without a server."""

from __future__ import annotations

import socket

import pytest

from common.access import KnownHosts, Rejections, TrustedProxies, address_group, parse_hosts
from common.access import rejections as module
from common.access.hosts import host_name


class Clock:
    """A clock that only the test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("a.example", "a.example"),
        ("A.Example:80", "a.example"),
        ("a.example:", "a.example"),
        ("[::1]:4400", "::1"),
        ("[::1]", "::1"),
        ("::1", None),
        ("[::1", None),
        ("[evil]:1", None),
        ("a.example:http", None),
        ("user@127.0.0.1", None),
        ("127.0.0.1/x", None),
        (":80", None),
    ],
)
def test_a_header_is_a_name_or_an_address_with_or_without_a_port(header: str, name: str | None) -> None:
    assert host_name(header) == name


def test_the_names_of_this_machine_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "GPUbox.lab.example")
    asked: list[str] = []
    monkeypatch.setattr(socket, "getfqdn", lambda: asked.append("") or "gpubox.other.example")
    hosts = KnownHosts()
    for name in ("gpubox", "gpubox.lab.example", "gpubox.local", "gpubox.lab.example.", "GPUBOX:4400"):
        assert hosts.knows(name), name
    assert not hosts.knows("evil.example") and asked == [], "a foreign host name causes no DNS lookup"
    assert hosts.knows("gpubox.other.example")
    assert not hosts.knows("gpubox.evil.example") and len(asked) == 1


def test_the_name_on_which_the_server_listens_is_known() -> None:
    assert KnownHosts(listens_on="Tidal.internal").knows("tidal.internal:4400")
    assert not KnownHosts(listens_on="0.0.0.0").knows("tidal.internal")


def test_requests_without_a_host_header_are_not_from_a_browser_and_pass() -> None:
    assert KnownHosts().knows(None) and KnownHosts().knows("")


@pytest.mark.parametrize(
    "text", ["http://a.example", "a.example:80", "*", "a.*.example", "a b", "a/b", "-a", "*.", "a..b"]
)
def test_an_invalid_host_name_is_a_clear_error(text: str) -> None:
    with pytest.raises(ValueError, match="is not a host name; write names such as"):
        parse_hosts(text)


def test_names_are_taken_in_lower_case_and_once() -> None:
    assert parse_hosts(" A.example, *.B.example ,a.example.,") == ["a.example", "*.b.example"]


def test_forwarded_addresses_count_from_trusted_peers_only() -> None:
    proxies = TrustedProxies("10.0.0.1, 192.168.0.0/16,::1")
    assert proxies.client("203.0.113.9", "198.51.100.1") == "203.0.113.9"
    assert proxies.client("10.0.0.1", "198.51.100.1") == "198.51.100.1"
    assert proxies.client("10.0.0.1", "1.1.1.1, 198.51.100.1, 192.168.3.4") == "198.51.100.1", (
        "the last address that is not a trusted proxy"
    )
    assert proxies.client("::1", "") == "::1"
    assert TrustedProxies("*").client("203.0.113.9", "198.51.100.1, 2.2.2.2") == "198.51.100.1"
    assert TrustedProxies("").client("127.0.0.1", "198.51.100.1") == "127.0.0.1"


def test_delays_start_after_ten_rejections_double_up_to_a_limit_and_end_after_a_minute() -> None:
    clock = Clock()
    rejections = Rejections(clock)
    delays = [rejections.count("203.0.113.7").delay_seconds for _ in range(17)]
    assert delays == [0.0] * 10 + [0.25, 0.5, 1.0, 2.0, 4.0, 4.0, 4.0]
    assert rejections.count("203.0.113.8").delay_seconds == 0.0, "each address has its own count"
    clock.now += 59.9
    last = rejections.count("203.0.113.7")
    assert (last.delay_seconds, last.retry_after) == (4.0, 1.0)
    clock.now += 0.1
    assert rejections.count("203.0.113.7").delay_seconds == 0.0


def test_only_a_limited_number_of_replies_is_delayed_and_the_rest_is_refused() -> None:
    rejections = Rejections(Clock())
    for _ in range(module.FREE):
        rejections.count("203.0.113.7")
    held = []
    for _ in range(module.MOST_WAITING):
        rejection = rejections.count("203.0.113.7")
        assert rejection.delay_seconds
        held.append(rejections.waiting(rejection))
        held[-1].__enter__()
    assert rejections.count("203.0.113.7").delay_seconds is None
    held.pop().__exit__(None, None, None)
    assert rejections.count("203.0.113.7").delay_seconds == 4.0


def test_few_lines_are_logged_for_many_rejections() -> None:
    rejections = Rejections(Clock())
    lines = [rejection.count for _ in range(1000) if (rejection := rejections.count("::1")).worth_a_line]
    assert lines == [*range(1, 11), 16, 32, 64, 128, 256, 512]


def test_memory_is_bounded_and_an_ipv6_network_counts_as_one_address() -> None:
    rejections = Rejections(Clock())
    for number in range(module.MOST_ADDRESSES + 500):
        rejections.count(f"10.{number // 65536}.{number // 256 % 256}.{number % 256}")
    assert len(rejections) == module.MOST_ADDRESSES
    for number in range(11):
        last = rejections.count(f"2001:db8::{number:x}")
    assert (last.address, last.delay_seconds) == (address_group("2001:db8::1"), 0.25)
    assert address_group("203.0.113.7:50123") == address_group("::ffff:203.0.113.7") == "203.0.113.7"
