# SPDX-License-Identifier: Apache-2.0
"""A default deny of Cilium's own kinds is attributed to what closes the direction, which Hubble does not tell."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from kube_cases import CASE, NAMESPACE, outcomes, proved, row
from kube_clusters import Ready

from ztconform.kube.cluster import KubeCluster
from ztconform.model import Manifest, Step

pytestmark = pytest.mark.usefixtures("nothing_left")
CLOSED: Manifest = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumNetworkPolicy",
    "metadata": {"name": "server-by-friend", "namespace": NAMESPACE},
    "spec": {
        "endpointSelector": {"matchLabels": {"k8s:app": "server"}},
        "ingress": [{"fromEndpoints": [{"matchLabels": {"app": "friend"}}]}],
    },
}
OF_ANOTHER: Manifest = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumNetworkPolicy",
    "metadata": {"name": "friend-by-nobody", "namespace": NAMESPACE},
    "spec": {"endpointSelector": {"matchLabels": {"app": "friend"}}, "ingress": [{}]},
}


@pytest.fixture
def cluster(cilium: Ready) -> Iterator[KubeCluster]:
    with cilium.start() as started:
        yield started


def test_a_default_deny_of_ciliums_own_kind_names_the_policy_that_selects_the_server(cluster: KubeCluster) -> None:
    rows = (row("friend", "allowed"), row("stranger", "denied"))
    results = proved(cluster, replace(CASE, steps=(Step(apply=(CLOSED, OF_ANOTHER), rows=rows),)))
    assert {"PROVED"} == set(outcomes(results).values()), {name: result.why for name, result in results.items()}
    cause = results["stranger denied"].cause
    assert cause is not None
    assert ((f"{NAMESPACE}/server-by-friend",), False) == (cause.policies, cause.explicit)
