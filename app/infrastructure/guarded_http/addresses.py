"""Which addresses are public, and so may be connected to for whoever names them.

Sources: the IANA registries of special-purpose addresses, which `ipaddress` knows only as far as its release does. What
Python 3.11 takes for global although it leads elsewhere is listed here.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

_IPV4_NOT_PUBLIC = tuple(
    IPv4Network(network)
    for network in (
        "100.64.0.0/10",  # behind the address translation of a carrier, RFC 6598; clouds keep metadata here
        "168.63.129.16/32",  # what Azure answers to its machines only, with their configuration among it
        "192.0.0.0/24",  # protocol assignments, RFC 6890; Oracle's cloud keeps metadata here
        "192.88.99.0/24",  # relays of 6to4, RFC 7526
        "198.18.0.0/15",  # measuring of networks, RFC 2544
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, with the broadcast address
    )
)
_IPV6_UNICAST = IPv6Network("2000::/3")
_IPV6_NOT_PUBLIC = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, RFC 2928: Teredo, which holds an IPv4 address, and others
        "2001:db8::/32",  # documentation, RFC 3849
        "2002::/16",  # 6to4, RFC 3056: holds an IPv4 address
        "3fff::/20",  # documentation, RFC 9637
    )
)
# How a network that speaks IPv6 only reaches the hosts of IPv4, RFC 6052: its last four bytes are the IPv4 address.
_NAT64 = IPv6Network("64:ff9b::/96")


def is_public(text: str) -> bool:
    """False for what is no address in its usual spelling, too: the system's own reading of others is never asked."""
    address = parse_address(text)
    if address is None:
        return False
    if isinstance(address, IPv4Address):
        return _is_public_ipv4(address)
    if address in _NAT64:
        return _is_public_ipv4(IPv4Address(address.packed[-4:]))
    # This leaves out IPv4-mapped addresses as well: no name server has a reason to answer with one.
    return address in _IPV6_UNICAST and not any(address in network for network in _IPV6_NOT_PUBLIC)


def is_loopback(text: str) -> bool:
    address = parse_address(text)
    return address is not None and address.is_loopback


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """None for an address with a scope, such as `fe80::1%eth0`: it means something on this machine only."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return None if isinstance(address, IPv6Address) and address.scope_id is not None else address


def _is_public_ipv4(address: IPv4Address) -> bool:
    return address.is_global and not any(address in network for network in _IPV4_NOT_PUBLIC)
