# SPDX-License-Identifier: Apache-2.0
"""How a SPIFFE ID that a case speaks of reads in the cluster, whose namespaces have names of their own, and back; pure."""

import re

from ztconform.kube.names import Names

LOCAL = "cluster.local"  # what Istio reads as its own trust domain, whatever that is called
_ACCOUNT = re.compile(r"((?:^|/)ns/)([^/]+)(/sa/)")
_OF_LINKERD = re.compile(r"(\.)([^.]+)(\.serviceaccount\.identity\.)")


def in_cluster(text: str, names: Names) -> str:
    """Return a text, as a header's value, with the namespace of every identity in it as it is in the cluster."""
    for pattern in (_ACCOUNT, _OF_LINKERD):
        text = pattern.sub(lambda found: f"{found[1]}{names.to_real(found[2])}{found[3]}", text)
    return text


def in_case(spiffe_id: str, names: Names, trust_domain: str) -> str:
    """Return the identity that a server saw as the case says it, in which the mesh's own trust domain is "cluster.local"."""
    if spiffe_id.startswith(f"spiffe://{trust_domain}/"):
        spiffe_id = f"spiffe://{LOCAL}{spiffe_id[len('spiffe://') + len(trust_domain) :]}"
    return _ACCOUNT.sub(lambda found: f"{found[1]}{names.to_case(found[2])}{found[3]}", spiffe_id)
