"""Who counts as a caller of /jwk, and what share of them has fetched a key."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskinporten.domain.evidence import (
    MAX_CALLERS_OF_NETWORK,
    UNNAMED,
    Caller,
    Fetch,
    Reach,
    admitted,
    behind,
    library,
    network,
    origin,
    reach,
)
from tests.world import NOW

LIBRARIES = [
    pytest.param("python-requests/2.31.0", "python-requests/2.31.0", id="a name and a version"),
    pytest.param("node", "node", id="a name"),
    pytest.param("Java/17.0.9", "Java/17.0.9", id="Java"),
    pytest.param("lib/1 (ola@example.no)", "lib/1", id="a person behind it"),
    pytest.param("lib/1(x)", "lib/1", id="a comment at once"),
    pytest.param("ola@example.no", UNNAMED, id="an address"),
    pytest.param("lib/1,x", UNNAMED, id="another sign"),
    pytest.param("a" * 32 + "/" + "1" * 24, "a" * 32 + "/" + "1" * 24, id="as long as may be"),
    pytest.param("a" * 33, UNNAMED, id="a letter longer"),
    pytest.param("a/" + "1" * 25, UNNAMED, id="a version a digit longer"),
    pytest.param("", UNNAMED, id="none"),
    pytest.param("løk/1", UNNAMED, id="not ASCII"),
    pytest.param("lib/1\nx", UNNAMED, id="a line end"),
]


@pytest.mark.parametrize(("user_agent", "expected"), LIBRARIES)
def test_of_a_user_agent_the_library_is_kept(user_agent: str, expected: str) -> None:
    """Nothing behind the first word, where operators put their own address."""
    assert library(user_agent) == expected


NETWORKS = [
    pytest.param("192.0.2.77", "192.0.0.0/16", id="IPv4"),
    pytest.param("2001:db8:1:2::3", "2001:db8::/32", id="IPv6"),
    pytest.param("::ffff:192.0.2.77", "192.0.0.0/16", id="IPv4 in IPv6"),
    pytest.param("", UNNAMED, id="none"),
    pytest.param("unix:/socket", UNNAMED, id="no address"),
]


@pytest.mark.parametrize(("address", "expected"), NETWORKS)
def test_of_an_address_the_network_is_kept(address: str, expected: str) -> None:
    """No address is kept."""
    assert network(address) == expected


ORIGINS = [
    pytest.param("10.1.1.1", "192.0.2.1", "192.0.2.1", id="from a proxy"),
    pytest.param("::ffff:10.1.1.1", "192.0.2.1", "192.0.2.1", id="from a proxy, in IPv6"),
    pytest.param("10.1.1.1", "6.6.6.6, 192.0.2.1", "192.0.2.1", id="the caller invents a hop"),
    pytest.param("10.1.1.1", "192.0.2.1,10.2.2.2", "192.0.2.1", id="two proxies"),
    pytest.param("10.1.1.1", "10.2.2.2", "10.2.2.2", id="a caller among the proxies"),
    pytest.param("10.1.1.1", "", "10.1.1.1", id="the proxy itself"),
    pytest.param("192.0.2.9", "10.1.1.1", "192.0.2.9", id="from a stranger: not believed"),
    pytest.param("socket", "192.0.2.1", "socket", id="a peer without an address"),
]


@pytest.mark.parametrize(("peer", "forwarded", "expected"), ORIGINS)
def test_only_trusted_proxies_are_believed(peer: str, forwarded: str, expected: str) -> None:
    """X-Forwarded-For is read from its end."""
    assert origin(peer, forwarded, [ip_network("10.0.0.0/8")]) == expected
    assert origin(peer, forwarded, []) == peer


def fetch(who: str, kid: str, at: int) -> Fetch:
    """A fetch by one of few callers."""
    return Fetch(who, "10.0.0.0/16", kid, at)


def test_the_share_of_those_seen_lately_that_have_the_key() -> None:
    """Both ends of the window to the second; an earlier fetch of the key counts."""
    fetches = [
        fetch("has it", "old", NOW),
        fetch("has it", "new", NOW - 9),
        fetch("lacks it", "old", NOW),
        fetch("gone", "old", NOW - 1),
        fetch("gone", "new", NOW - 1),
    ]

    assert reach(fetches, "new", NOW) == Reach(2, 1)
    assert reach(fetches, "new", NOW - 1) == Reach(3, 2)
    assert reach(fetches, "new", NOW - 1).percent == 66
    assert behind(fetches, "new", NOW) == {Caller("lacks it", "10.0.0.0/16"): NOW}
    assert reach(fetches, "new", NOW + 1) == Reach(0, 0)
    assert Reach(0, 0).percent == 0


@given(
    st.lists(
        st.builds(
            Fetch,
            st.sampled_from("abc"),
            st.just("n"),
            st.sampled_from(["old", "new"]),
            st.integers(0, 9),
        )
    ),
    st.integers(0, 9),
)
def test_those_with_the_key_and_those_behind_are_all(fetches: list[Fetch], since: int) -> None:
    """Nobody is counted twice or lost."""
    found = reach(fetches, "new", since)

    assert found.fetched + len(behind(fetches, "new", since)) == found.callers
    assert 0 <= found.percent <= 100


def test_strangers_fill_neither_the_memory_nor_push_anyone_out() -> None:
    """Many names from one network, and many networks."""
    known = Caller("known", "10.0.0.0/16")
    invented = [Caller(f"c{n}", "10.0.0.0/16") for n in range(99)]
    spread = [Caller("c", f"10.{n}.0.0/16") for n in range(1, 99)]

    assert len(admitted([known], invented, 99)) == MAX_CALLERS_OF_NETWORK - 1
    assert len(admitted([known], spread, 50)) == 49
    assert admitted([known, *spread], [known, Caller("new", "x")], 50) == {known}
    assert admitted([], [known, known], 1) == {known}
