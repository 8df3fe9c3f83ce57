# SPDX-License-Identifier: Apache-2.0
"""Which denial one entry of a proxy's log tells of, in Envoy's words, and the name that Istio gives the rule behind it; pure.

Whose probe an entry is about is left to the lab's and the cluster's own readers of the log.
"""

import re
from dataclasses import dataclass
from typing import Literal

from ztconform.errors import InternalError
from ztconform.mesh.logentry import Address, Entry
from ztconform.model import Ref

How = Literal["http-rbac", "http-path", "tcp-rbac", "not-mtls", "client-certificate", "server-certificate"]

_DENIED = re.compile(r"rbac_access_denied_matched_policy\[(.*)\]", re.DOTALL)
_ALERT = "_ALERT_"  # the other side's word; what this side found wrong has none
_REFUSED = ("CERTIFICATE_VERIFY_FAILED", "PEER_DID_NOT_RETURN_A_CERTIFICATE")
_RULE = re.compile(r"ns\[([^\[\]]+)\]-policy\[([^\[\]]+)\]-rule\[([0-9]+)\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """Say that a proxy refused a probe, and how."""

    nonce: str
    layer: Literal["l7", "mtls"]
    how: How
    details: str  # Envoy's words
    rule: str  # Envoy's name of the rule that refused; "" for an implicit denial and for another layer
    pod: Ref | None  # whose proxy refused; None where only the other side's alert is known
    by: Address | None  # where the refusal came from, as the client addressed it


def of_request(entry: Entry, nonce: str) -> Denial | None:
    """Return how a server's proxy refused a request, None if it did not."""
    # By the details and not the status: a denied gRPC call is answered with 200, and an application may send a 403 of its own.
    denied = _DENIED.fullmatch(entry.details)
    if denied is not None:
        return _denial(nonce, "http-rbac", entry.details, entry.pod, entry.local, denied[1])
    if entry.details == "path_normalization_failed":  # answered with 400: a fragment (CVE-2021-39156), a NUL
        return _denial(nonce, "http-path", entry.details, entry.pod, entry.local)
    return None


def of_connection(entry: Entry, nonce: str) -> Denial | None:
    """Return how a server's proxy refused a connection, None if it did not."""
    denied = _DENIED.fullmatch(entry.terminated)
    if denied is not None:
        return _denial(nonce, "tcp-rbac", entry.terminated, entry.pod, entry.local, denied[1])
    if entry.details == "filter_chain_not_found":
        return _denial(nonce, "not-mtls", entry.details, entry.pod, entry.local)
    if any(reason in entry.tls_failure for reason in _REFUSED):
        return _denial(nonce, "client-certificate", entry.tls_failure, entry.pod, entry.local)
    return None


def of_upstream(entry: Entry, nonce: str) -> Denial | None:
    """Return what came between a client's own proxy and the server: a certificate that one of them refused; else None."""
    failure = entry.upstream_failure
    if _ALERT in failure:
        return _denial(nonce, "client-certificate", failure, None, entry.upstream)
    if _REFUSED[0] in failure:
        return _denial(nonce, "server-certificate", failure, entry.pod, entry.upstream)
    return None


def was_denied(entry: Entry) -> bool:
    """Return whether authorization refused the request of an entry."""
    return _DENIED.fullmatch(entry.details) is not None


def was_refused(entry: Entry) -> bool:
    """Return whether an entry tells of anything but a connection or request that was let in."""
    return bool(entry.tls_failure or entry.terminated) or was_denied(entry)


def policy_of(rule: str) -> Ref:
    """Return the policy that a rule belongs to, by the name that Istio gives it."""
    found = _RULE.fullmatch(rule)
    if not found:
        raise InternalError(f"the proxy names a rule {rule!r} that is not of Istio's making; please report this")
    return Ref(found[1], found[2])


def _denial(nonce: str, how: How, details: str, pod: Ref | None, by: Address | None, rule: str = "none") -> Denial:
    layer: Literal["l7", "mtls"] = "l7" if how in ("http-rbac", "http-path", "tcp-rbac") else "mtls"
    return Denial(nonce=nonce, layer=layer, how=how, details=details, rule="" if rule == "none" else rule, pod=pod, by=by)
