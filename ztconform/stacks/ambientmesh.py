# SPDX-License-Identifier: Apache-2.0
"""How Istio's ambient mode is spoken with: what has ztunnel capture a pod, how its denials are logged, and what it can prove.

Labels and annotations are those of release-1.30 (pkg/config/constants, istio.io/api/annotation). ztunnel judges connections; what
a waypoint judges is not proved here, for none is made.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ztconform.errors import UsageError
from ztconform.mesh import ztunnellog
from ztconform.stacks import istiomesh

if TYPE_CHECKING:
    from ztconform.kube.profile import Mesh

SELECTOR = "app=ztunnel"  # of whatever revision and version
NO_WAYPOINT = "ztunnel knows connections and no requests, and waypoints are not made in our namespaces yet"
NOT_SHOWN = "ztunnel keeps the SVIDs of a node's pods in its own memory: no probe can show one"
_MODE = "istio.io/dataplane-mode"


def mesh(config: Mapping[str, Any], *, namespace: str = istiomesh.NAMESPACE) -> "Mesh":
    """Return the mesh of a MeshConfig whose pods ztunnel captures."""
    from ztconform.kube.profile import Mesh  # noqa: PLC0415 - the extra may be missing
    from ztconform.kube.proxylog import ProxyLogs  # noqa: PLC0415 - likewise
    from ztconform.kube.ztunnelcauses import Witness, Ztunnels, word  # noqa: PLC0415 - likewise

    root = str(config.get("rootNamespace") or namespace)
    return Mesh(
        name="Istio",
        trust_domain=str(config.get("trustDomain") or "cluster.local"),
        root_namespace=root,
        namespace_labels={},  # pods are captured one by one
        meshed_labels={_MODE: "ambient"},
        bare_labels={_MODE: "none", "sidecar.istio.io/inject": "false"},
        annotations={},
        svid_annotations=_not_shown,
        proxy="",
        proxy_uid=istiomesh.PROXY_UID,
        pod_security="restricted",  # istio-cni redirects, and no container is added
        objects=lambda area: (),
        witness=lambda resources, policies, nodes: Witness(
            ProxyLogs(resources, Ztunnels(resources, nodes, SELECTOR), ztunnellog.read, word), policies, root
        ),
        redirected=("ambient.istio.io/redirection", "enabled"),
    )


def features() -> Mapping[str, str]:
    """Return what the ambient mode adds to what a stack can prove, each with "" or the reason why not."""
    return {
        "mtls": "",
        "l7-authz": NO_WAYPOINT,
        "identity": "ztunnel tells an application nothing of who called it",
        "identity-pinning": "to ztunnel a server is who its pod is, whichever Service leads there: nobody can pin another",
        "dotted-accounts": NO_WAYPOINT,
        "client-tls": NOT_SHOWN,
        "plaintext-by-address": "ztunnel speaks mutual TLS also to a pod that is called by its address",
        "authorization-dry-run": "ztunnel logs what a dry run would deny only if a flag of its own is set",
        "svid-rotation": istiomesh.NOT_DRIVEN,
        "hbone": NOT_SHOWN,
        "waypoint": NO_WAYPOINT,
    }


def _not_shown(seconds: int) -> Mapping[str, str]:
    raise UsageError(f"a row shows a pod's own certificate: {NOT_SHOWN}")
