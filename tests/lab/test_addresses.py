"""The guard against requests to where a user should not reach: address by address."""

import ipaddress

import pytest

from lab import addresses
from lab.settings import Settings

PUBLIC = ["8.8.8.8", "93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "::ffff:8.8.8.8"]
OTHERS = [
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "192.88.99.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fc00::1",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
    "2002:a00:1::",
    "64:ff9b::a00:1",
    "64:ff9b:1::a00:1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::10.0.0.1",
    "2001::1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address):
    assert addresses.is_public(addresses.unmapped(ipaddress.ip_address(address)))


@pytest.mark.parametrize("address", OTHERS)
def test_not_public(address):
    assert not addresses.is_public(addresses.unmapped(ipaddress.ip_address(address)))


@pytest.mark.parametrize("address", OTHERS)
def test_a_url_with_such_an_address_is_refused(address):
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(addresses.Refused):
        addresses.checked(f"https://{host}/", [])


@pytest.mark.parametrize("host", ["localhost", "2130706433", "0x7f.1", "127.1", "[::ffff:7f00:1]"])
def test_other_ways_to_write_loopback(host):
    with pytest.raises(addresses.Refused, match=r"not a public address|has no address"):
        addresses.checked(f"https://{host}/", [])


def test_one_private_address_among_public_ones_is_enough(monkeypatch):
    answers = [ipaddress.ip_address("8.8.8.8"), ipaddress.ip_address("10.0.0.1")]
    monkeypatch.setattr(addresses, "lookup", lambda host, port: answers)
    with pytest.raises(addresses.Refused, match=r"10\.0\.0\.1"):
        addresses.checked("https://example.org/", [])
    monkeypatch.setattr(addresses, "lookup", lambda host, port: answers[:1])
    assert addresses.checked("https://example.org/", []) == ["8.8.8.8"]


def test_what_the_operator_allows():
    allowed = addresses.networks("127.0.0.0/8, ::1/128")
    assert addresses.checked("http://127.0.0.1:8080/x", allowed) == ["127.0.0.1"]
    assert addresses.checked("https://[::1]/x", allowed) == ["::1"]
    with pytest.raises(addresses.Refused):
        addresses.checked("https://10.0.0.1/", allowed)
    with pytest.raises(addresses.Refused, match="only https"):
        addresses.checked("http://8.8.8.8/", allowed)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.org",
        "//8.8.8.8/",
        "ftp://8.8.8.8/",
        "file:///etc/passwd",
        "https:///path",
        "https://user:secret@8.8.8.8/",
        "https://8.8.8.8/#part",
        "https://8.8.8.8:99999/",
        "https://8.8.8.8:0/",
        "https://8.8.8.8:x/",
        "https://[8.8.8.8/",
        "https://8.8.8.8/a b",
        "https://8.8.8.8/\n",
        "https://bücher.example/",
        "https://8.8.8.8/" + "x" * 2000,
        f"https://{'x' * 70}.example/",
        "https://no-such-name.invalid/",
    ],
)
def test_what_is_no_url(url):
    with pytest.raises(addresses.Refused):
        addresses.checked(url, [])


def test_settings_refuse_what_is_no_network():
    assert [str(one) for one in Settings(webhook_allow="10.0.0.0/8,127.0.0.1").webhook_networks] == [
        "10.0.0.0/8",
        "127.0.0.1/32",
    ]
    with pytest.raises(ValueError, match="webhook_allow"):
        Settings(webhook_allow="everything")
