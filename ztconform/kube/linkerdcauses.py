# SPDX-License-Identifier: Apache-2.0
"""What Linkerd's proxies say of a round: who refused a probe, who was not reached, and who came in plaintext.

Linkerd has no rule that denies: what no authorization of the port's Server allows is refused, and the Server is named. Whether it
was the lack of an identity that the Server refused, or who it was, its own access policy tells.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ztconform.evidence import Cause
from ztconform.kube.meshcauses import passed, refusals
from ztconform.kube.pods import KubePod
from ztconform.kube.policies import Policies
from ztconform.kube.profile import Journey, Probes
from ztconform.kube.proxylog import ProxyLogs, Sent, address
from ztconform.mesh.linkerdlog import Line
from ztconform.model import Ref

_AUTHENTICATED = frozenset({"all-authenticated", "cluster-authenticated"})  # access policies that ask for any identity
# How a proxy refuses: where no route is found, and a call by gRPC, whose own status is in its trailers, too.
_REFUSALS = frozenset({403, 404, 200})


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """Hold what the logs say of one probe."""

    known: bool  # whether its whole way was found
    denied: Line | None = None  # the server's proxy refused it
    served: Line | None = None  # the server's own access log
    audited: Line | None = None  # nothing but an audit let it in
    audit_known: bool = True  # False: of its client's requests some were audited, and which cannot be told
    unreached: bool = False  # the client's own proxy could not connect


class Witness:
    """Speak for the proxies of one case."""

    def __init__(self, logs: ProxyLogs[Line, Word], policies: Policies, default: str) -> None:
        """Take as `default` the access policy of a port that no Server selects."""
        self._logs = logs
        self._policies = policies
        self._default = default

    def causes(self, sent: Probes, pods: Mapping[Ref, KubePod], since: float) -> tuple[list[Cause], list[Journey]]:
        """Return who refused these, and of those whom their client's own proxy could not send, where it tried to connect."""
        words, lost = refusals(self._logs, sent, pods, since)
        return [self._cause(nonce, word.denied, pods) for nonce, word in words.items() if word.denied is not None], lost

    def remarks(self, sent: Probes, pods: Mapping[Ref, KubePod], since: float) -> Mapping[str, frozenset[str]]:
        """Return what the servers' proxies remarked on requests that passed; one that none knows is left out."""
        words = passed(self._logs, sent, pods, since)
        return {nonce: self._remark(word, pods) for nonce, word in words.items() if word.served is not None and word.audit_known}

    def _remark(self, word: Word, pods: Mapping[Ref, KubePod]) -> frozenset[str]:
        found = set() if word.served is not None and word.served.authenticated else {"plaintext"}
        if word.audited is not None and word.audited.pod in pods:
            found.add(self._policies.known_as(Ref(pods[word.audited.pod].real.namespace, word.audited.server)))
        return frozenset(found)

    def _cause(self, nonce: str, line: Line, pods: Mapping[Ref, KubePod]) -> Cause:
        pod, policies, access = pods.get(line.pod), tuple[str, ...](), self._default
        if line.server and pod is not None:
            server = Ref(pod.real.namespace, line.server)
            policies = (self._policies.known_as(server),)
            access = str(self._policies.spec("Server", server).get("accessPolicy") or "deny")
        return Cause(
            nonce=nonce,
            layer="mtls" if not line.authenticated and access in _AUTHENTICATED else "l7",
            policies=policies,
            explicit=False,
            direction="",
            endpoint=line.pod,
            source="access-log",
        )


def word(sent: Sent, lines: Sequence[Line]) -> Word:
    """Return what lines say of a probe; pure."""
    servers = {pod.ref for pod in sent.servers}
    mine = [e for e in lines if e.what == "served" and e.pod in servers and e.nonce == sent.observation.nonce]
    if mine:
        served = mine[-1]
        audits, known = _audits(served, lines)
        return Word(known=True, served=served, denied=_refusal(served, lines), audited=audits, audit_known=known)
    if sent.client is not None:
        # The client's own proxy answered in the server's place, by the very connection that the probe was sent on.
        source = address(sent.observation.source)
        failed = [e for e in lines if e.what == "failed" and not e.inward and e.pod == sent.client.ref and e.client == source]
        if failed:
            return Word(known=True, unreached=True)
    denied = [e for e in lines if e.what == "connection-denied" and e.pod in servers and _is_from(e, sent)]
    return Word(known=bool(denied), denied=denied[-1] if denied else None)


def _refusal(served: Line, lines: Sequence[Line]) -> Line | None:
    """Return which Server refused a request of the access log, None where it is the application that answered.

    What the proxy wrote on the thread that refused it, just before, names the Server; nothing does where no route was found.
    """
    if served.status not in _REFUSALS:
        return None
    for at in range(len(lines) - 1, -1, -1):
        line = lines[at]
        if not (line.refused and line.inward and (line.pod, line.client, line.path) == (served.pod, served.client, served.path)):
            continue
        before = () if line.unrouted else reversed(lines[:at])
        named = (e for e in before if e.what == "request-denied" and (e.pod, e.thread) == (line.pod, line.thread))
        return replace(next(named, line), authenticated=served.authenticated)
    return None


def _audits(served: Line, lines: Sequence[Line]) -> tuple[Line | None, bool]:
    """Return what said that a request was let in by an audit alone, and whether it is known.

    Such a line has the client's address without a port: it tells of a request only if all of that client's were audited, or none.
    """
    host = served.client[0] if served.client is not None else None
    of_client = [e for e in lines if e.pod == served.pod and e.client is not None and e.client[0] == host]
    audits = [e for e in of_client if e.what == "audited" and e.server]
    return (audits[-1] if audits else None), len(audits) in (0, sum(e.what == "served" for e in of_client))


def _is_from(line: Line, sent: Sent) -> bool:
    """Return whether a connection is the probe's, or of a captured client's proxy, whose port nobody knows."""
    if line.client is None or line.port != sent.attempt.probe.port:
        return False
    if sent.client is None:
        return line.client == address(sent.observation.source)
    return line.client[0] in sent.client.addresses
