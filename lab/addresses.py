"""Where the service may be made to connect to: public addresses, and networks that its operator allows by name.

A webhook's URL is a user's, the connection is the service's: without this guard it would reach what only the service
can, such as a metadata server (server-side request forgery). What is checked is the address that is then connected to.
"""

import ipaddress
import socket
from collections.abc import Sequence
from urllib.parse import SplitResult, urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_URL = 2000
NEVER = [
    ipaddress.ip_network(network)
    for network in (
        "192.88.99.0/24",  # relays of 6to4
        "2002::/16",  # 6to4: an IPv4 address inside
        "64:ff9b::/96",  # NAT64, too
        "64:ff9b:1::/48",
        "::/96",
        "2001::/32",  # Teredo, too
    )
]
"""Which ``is_global`` of this Python may take for public."""


class Refused(Exception):  # noqa: N818  (an answer, as its message says it)
    """A URL that the service does not connect to; the message says why."""


def is_public(address: Address) -> bool:
    """Whether an address is one of the internet's, reached as what it says it is."""
    return (
        address.is_global
        and not (address.is_multicast or address.is_reserved or address.is_unspecified)
        and not (isinstance(address, ipaddress.IPv6Address) and address.is_site_local)
        and not any(address in network for network in NEVER)
    )


def networks(text: str) -> list[Network]:
    """Networks separated by commas. Raises ValueError."""
    return [ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip()]


def checked(url: str, allowed: Sequence[Network]) -> list[str]:
    """The addresses behind a URL, looked up once.

    Raises:
        Refused: it is no URL, or one of its addresses is neither public nor in ``allowed``.
    """
    parts = split(url)
    host = str(parts.hostname)
    found = [unmapped(address) for address in lookup(host, parts.port or (443 if parts.scheme == "https" else 80))]
    trusted = all(any(address in network for network in allowed) for address in found)
    if parts.scheme != "https" and not trusted:
        raise Refused("only https:// is connected to")
    for address in found:
        if not is_public(address) and not any(address in network for network in allowed):
            raise Refused(f"{host} leads to {address}, which is not a public address")
    return [str(address) for address in found]


def split(url: str) -> SplitResult:
    """The parts of an absolute URL of https or http. Raises Refused."""
    if len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise Refused(f"a URL has at most {MAX_URL} printable ASCII characters and no spaces")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Refused(str(error)) from None
    if parts.scheme not in {"https", "http"} or not parts.hostname or port == 0:
        raise Refused("should be like https://host/path")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise Refused("has a user, a password or a fragment, which would not be sent")
    return parts


def lookup(host: str, port: int) -> list[Address]:
    """All addresses of a name. Raises Refused."""
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return [ipaddress.ip_address(answer[4][0]) for answer in answers]
    except (OSError, ValueError):  # a name may be too long for the encoding of names
        raise Refused(f"{host} has no address") from None


def unmapped(address: Address) -> Address:
    """The IPv4 address of one that is written as IPv6."""
    return getattr(address, "ipv4_mapped", None) or address
