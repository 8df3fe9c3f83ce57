# SPDX-License-Identifier: Apache-2.0
"""HTTP through the API server's port forwarding, to a real pod that no policy lets anybody into."""

from collections.abc import Iterator

import pytest
from kube_clusters import Ready

from ztconform.errors import ClusterError
from ztconform.kube import forwarded
from ztconform.model import Port, Ref, Step, Topology, Workload

pytestmark = pytest.mark.usefixtures("nothing_left")
SERVER = Ref("forwarded", "server")
CLOSED = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "closed", "namespace": SERVER.namespace},
    "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
}


@pytest.fixture
def pod(cilium: Ready) -> Iterator[tuple[str, str]]:
    workload = Workload(ref=SERVER, ports=(Port(number=8080, name="http"),))
    with cilium.start() as cluster:
        cluster.deploy(Topology(namespaces={SERVER.namespace: {}}, workloads=(workload,), private=True), "forwarded")
        cluster.perform(Step(apply=(CLOSED,)))
        found = cluster.pod(SERVER)
        assert found is not None
        yield found.real.namespace, found.real.name


def test_a_pod_answers_whoever_is_let_in(cilium: Ready, pod: tuple[str, str]) -> None:
    connection = cilium.connection()
    assert str(SERVER) in forwarded.get(connection, pod, 8080, "/", 10).decode()
    with pytest.raises(ClusterError, match=r"GET /status/503 on port 8080 of pod .*: answered with 503"):
        forwarded.get(connection, pod, 8080, "/status/503", 10)
    with pytest.raises(ClusterError, match="on port 9999 of pod"):
        forwarded.get(connection, pod, 9999, "/", 10)
    with pytest.raises(ClusterError, match="not found"):
        forwarded.get(connection, (pod[0], "nobody"), 8080, "/", 10)
