# SPDX-License-Identifier: Apache-2.0
"""Who refused a probe is read from the lines of the nodes' ztunnels, by the ends of its connection."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztconform.errors import ClusterError
from ztconform.evidence import Observation
from ztconform.kube import meshpods
from ztconform.kube.pods import KubePod
from ztconform.kube.proxylog import Sent
from ztconform.kube.ztunnelcauses import Word, word
from ztconform.mesh.ztunnellog import Line, Rejection, read
from ztconform.model import Attempt, Probe, Ref, Workload
from ztconform.stacks import ambientmesh

SERVER, OTHER, CLIENT = Ref("shop", "payment-0"), Ref("shop", "payment-1"), Ref("shop", "frontend-0")
ADDRESSES = {SERVER: "10.244.1.9", OTHER: "10.244.2.9", CLIENT: "10.244.0.7"}
REJECTED = "connection closed due to policy rejection: "
NOT_ALLOWED = f"{REJECTED}allow policies exist, but none allowed"
STRICT = f"{REJECTED}explicitly denied by: istio-system/istio_converted_static_strict"
PORT_STRICT = f"{REJECTED}explicitly denied by: shop-1/converted_peer_authentication_payment"
BY_NAME = f"{REJECTED}explicitly denied by: shop-1/nobody"
HEARD = "http status: 401 Unauthorized"
BLOCKED = "connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008: deadline has elapsed"


def text(direction: str, source: str, to: str, error: str = "", hbone: str = "", message: str = "connection complete") -> bytes:
    fields = f'src.addr={source} src.workload="frontend-0" src.namespace="shop-1" dst.addr={to}'
    fields += f" dst.hbone_addr={hbone}" if hbone else ""
    fields += f' dst.workload="payment-0" direction="{direction}" bytes_sent=0 bytes_recv=0 duration="1ms"'
    fields += f" error={json.dumps(error)}" if error else ""
    level = "error" if error else "info"
    return f"2026-11-29T01:00:00.500000Z\t{level}\taccess\t{message}\t{fields}".encode()


def lines(*said: bytes) -> list[Line]:
    read_ = (read(line, ref, (address,)) for ref, address in ADDRESSES.items() for line in said)
    return [line for line in read_ if line is not None]


def made(ref: Ref) -> KubePod:
    workload = Workload(ref=Ref(ref.namespace, ref.name[:-2]), meshed=True)
    return KubePod(ref=ref, real=ref, workload=workload, node=0, addresses=(ADDRESSES[ref],), serves=True)


def sent(*, captured: bool = True) -> Sent:
    probe = Probe(source=CLIENT, target=Ref("shop", "payment"), port=8080)
    attempt = Attempt(id="a", row="r", probe=probe, targets=(SERVER, OTHER), timeout=1.0)
    met = Observation(attempt="a", nonce="n1", sent=1, ended=2, signal="closed", stage="request", source="10.244.0.7 40000")
    client = made(CLIENT) if captured else None
    return Sent(attempt=attempt, observation=met, client=client, servers=(made(SERVER), made(OTHER)))


def out(error: str = "", source: str = "10.244.0.7:40000") -> bytes:
    return text("outbound", source, "10.244.1.9:15008", error, hbone="10.244.1.9:8080")


def tunnelled(error: str = "", server: str = "10.244.1.9", port: int = 8080, client: str = "10.244.0.7:51000") -> bytes:
    return text("inbound", client, f"{server}:15008", error, hbone=f"{server}:{port}")


def plain(error: str = "", source: str = "10.244.0.7:40000", port: int = 8080) -> bytes:
    return text("inbound", source, f"10.244.1.9:{port}", error)


def denied(layer: str, policy: Ref | None = None, by: Ref = SERVER) -> Word:
    return Word(known=True, denial=(by, Rejection(layer=layer, policy=policy)))  # type: ignore[arg-type]  # of a Literal


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        pytest.param([out(HEARD), tunnelled(NOT_ALLOWED)], denied("l7"), id="of-no-allow-policy"),
        pytest.param([out(HEARD), tunnelled(BY_NAME)], denied("l7", Ref("shop-1", "nobody")), id="of-a-deny-policy"),
        pytest.param([out(HEARD), tunnelled(NOT_ALLOWED, "10.244.2.9")], denied("l7", by=OTHER), id="of-the-other-replica"),
        pytest.param([out(HEARD), tunnelled(NOT_ALLOWED), tunnelled(NOT_ALLOWED)], denied("l7"), id="twice-by-the-same"),
        pytest.param([out(HEARD), tunnelled(NOT_ALLOWED), tunnelled(BY_NAME)], Word(known=False), id="two-may-have"),
        pytest.param([out(HEARD)], Word(known=False), id="the-server-has-not-said-it-yet"),
        pytest.param([tunnelled(NOT_ALLOWED)], Word(known=False), id="the-client-has-not-said-it-yet"),
        pytest.param([out(HEARD), tunnelled(NOT_ALLOWED, port=8081)], Word(known=False), id="of-another-port"),
        pytest.param(
            [out(HEARD), tunnelled(NOT_ALLOWED, client="10.244.0.8:51000")], Word(known=False), id="of-another-client"
        ),
        pytest.param([out(HEARD), plain(STRICT, "10.244.0.7:1")], Word(known=False), id="what-was-plaintext-is-another's"),
        pytest.param([out(HEARD, "10.244.0.7:40001"), tunnelled(NOT_ALLOWED)], Word(known=False), id="another-connection"),
        pytest.param([out(HEARD), out(HEARD), tunnelled(NOT_ALLOWED)], Word(known=False), id="one-port-twice"),
        pytest.param([out(BLOCKED)], Word(known=True, unreached=True), id="a-dropped-tunnel"),
        pytest.param([out("connection failed: Connection refused")], Word(known=True, unreached=True), id="not-connected"),
        pytest.param([out("http status: 503 Service Unavailable"), tunnelled("connection failed: refused")], Word(known=True),
                     id="an-application-that-is-not-there-is-no-denial"),
    ],
)  # fmt: skip
def test_a_captured_clients_probe_is_found_by_both_ends(said: list[bytes], expected: Word) -> None:
    assert expected == word(sent(), lines(*said))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        pytest.param([plain(STRICT)], denied("mtls"), id="strict"),
        pytest.param([plain(PORT_STRICT)], denied("mtls", Ref("shop-1", "payment")), id="strict-on-this-port"),
        pytest.param([plain(NOT_ALLOWED)], denied("l7"), id="of-no-allow-policy"),
        pytest.param([plain(f"{REJECTED}workload mismatch")], Word(known=True), id="no-policy-did"),
        pytest.param([plain("io error: reset")], Word(known=True), id="an-error-is-no-denial"),
        pytest.param([plain(STRICT, "10.244.0.7:40001")], Word(known=False), id="another-connection"),
        pytest.param([plain(STRICT, port=8081)], Word(known=False), id="another-port"),
        pytest.param([plain(STRICT), plain(STRICT)], Word(known=False), id="one-port-twice"),
        pytest.param([], Word(known=False), id="nothing"),
    ],
)
def test_a_bare_clients_probe_is_found_by_the_servers(said: list[bytes], expected: Word) -> None:
    assert expected == word(sent(captured=False), lines(*said))


def test_what_passed_is_known_to_be_plaintext_or_not() -> None:
    (through, *_), (bare,) = lines(out(), tunnelled()), lines(plain())
    assert (False, True) == (through.plaintext, bare.plaintext)
    served = word(sent(captured=False), lines(plain())).served
    assert served is not None
    assert served.plaintext


def test_json_says_the_same() -> None:
    said = {
        "level": "error",
        "time": "2026-11-29T01:00:00Z",
        "scope": "access",
        "message": "connection complete",
        "src.addr": "10.244.0.7:51000",
        "dst.addr": "10.244.1.9:15008",
        "dst.hbone_addr": "10.244.1.9:8080",
        "direction": "inbound",
        "error": NOT_ALLOWED,
    }
    assert lines(tunnelled(NOT_ALLOWED)) == lines(json.dumps(said).encode())


@pytest.mark.parametrize(
    "line",
    [
        text("inbound", "10.244.0.7:51000", "10.244.1.9:15008", message="connection opened"),
        text("sideways", "10.244.0.7:51000", "10.244.1.9:15008"),
        text("inbound", "10.244.0.7:51000", "10.244.3.1:15008"),
        b"2026-11-29T01:00:00Z\tinfo\tstate\tconnection complete\tdst.addr=10.244.1.9:1 direction=inbound",
        b'{"scope": "access"}',
        b'{"scope": "access", "direction": []}',
        b"",
    ],
)
def test_what_tells_of_no_connection_of_the_pod_is_passed_over(line: bytes) -> None:
    assert [] == lines(line)


@given(st.binary(max_size=200))
def test_no_bytes_are_an_error(line: bytes) -> None:
    read(line, SERVER, ("10.244.1.9",))
    read(text("inbound", "10.244.0.7:1", "10.244.1.9:2") + line, SERVER, ("10.244.1.9",))


def pod(**annotations: str) -> dict[str, object]:
    return {"metadata": {"namespace": "shop-1", "name": "payment-0", "annotations": annotations}}


def test_a_pod_is_ready_once_it_is_captured_and_only_if_it_is_to_be() -> None:
    mesh = ambientmesh.mesh({})
    captured = pod(**{"ambient.istio.io/redirection": "enabled"})
    meshed, bare = Workload(ref=SERVER, meshed=True), Workload(ref=SERVER)
    assert "" == meshpods.not_captured(captured, meshed, mesh)
    assert "is not captured" in meshpods.not_captured(pod(), meshed, mesh)
    assert "" == meshpods.not_captured(pod(), bare, mesh)
    with pytest.raises(ClusterError, match="although it is labelled not to be"):
        meshpods.not_captured(captured, bare, mesh)


def test_who_sends_past_ztunnel_is_a_pod_that_it_does_not_capture() -> None:
    attacker = Workload(ref=Ref("shop", "attacker"), labels={"app": "attacker"}, meshed=True, past_proxy=("",))
    found = meshpods.uncaptured(attacker, ambientmesh.mesh({}))
    assert Workload(ref=Ref("shop", "attacker"), labels={"app": "attacker"}) == found
    assert meshpods.uncaptured(Workload(ref=SERVER, meshed=True), ambientmesh.mesh({})) is None
