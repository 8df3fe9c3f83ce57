# SPDX-License-Identifier: Apache-2.0
"""How Istio's ambient mode is spoken with: what has ztunnel capture a pod, how its denials are logged, and what it can prove.

Labels and annotations are those of release-1.30 (pkg/config/constants, istio.io/api/annotation). ztunnel judges connections; what
a waypoint is made of, and what it lets be proved, is in `waypoint`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ztconform.errors import UsageError
from ztconform.mesh import ztunnellog
from ztconform.model import Manifest
from ztconform.stacks import istiolog, istiomesh, waypoint

if TYPE_CHECKING:
    from ztconform.kube.policies import Policies
    from ztconform.kube.profile import Mesh
    from ztconform.kube.resources import Resources
    from ztconform.settings import PodOptions

SELECTOR = "app=ztunnel"  # of whatever revision and version
NOT_SHOWN = "ztunnel keeps the SVIDs of a node's pods in its own memory: no probe can show one"
_MODE = "istio.io/dataplane-mode"


def mesh(config: Mapping[str, Any], *, namespace: str = istiomesh.NAMESPACE, revision: str = "") -> "Mesh":
    """Return the mesh of a MeshConfig whose pods ztunnel captures; `revision` is "" for the default control plane."""
    from ztconform.kube import waypoints, ztunnelcauses  # noqa: PLC0415 - the extra may be missing
    from ztconform.kube.profile import Mesh, Waypoint, Witness  # noqa: PLC0415 - likewise
    from ztconform.kube.proxylog import ProxyLogs  # noqa: PLC0415 - likewise

    root = str(config.get("rootNamespace") or namespace)

    def witness(resources: "Resources", policies: "Policies", nodes: Sequence[str]) -> Witness:
        ztunnels = ztunnelcauses.Ztunnels(resources, nodes, SELECTOR)
        lines = ProxyLogs(resources, ztunnels, ztunnellog.read, ztunnelcauses.word)
        entries = ProxyLogs(resources, waypoints.Waypoints(resources, waypoint.NAME), istiolog.read_waypoint, waypoints.word)
        return waypoints.Witness(entries, policies, ztunnelcauses.Witness(lines, policies, root))

    def objects(place: str, options: "PodOptions") -> tuple[Manifest, ...]:
        made = waypoint.objects(place, options, revision)
        return made if config.get("accessLogFile") else (*made, istiomesh.logging(place))

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
        witness=witness,
        redirected=("ambient.istio.io/redirection", "enabled"),
        waypoint=Waypoint(name=waypoint.NAME, objects=objects, service_labels=waypoint.SERVICE_LABELS),
        request_id=not istiolog.is_ours(config),
    )


def features() -> Mapping[str, str]:
    """Return what ztunnel adds to what a stack can prove, each with "" or the reason why not."""
    return {
        "mtls": "",
        "identity-pinning": "to ztunnel a server is who its pod is, whichever Service leads there: nobody can pin another",
        "client-tls": NOT_SHOWN,
        "plaintext-by-address": "ztunnel speaks mutual TLS also to a pod that is called by its address",
        "svid-rotation": istiomesh.NOT_DRIVEN,
        "hbone": NOT_SHOWN,
    }


def _not_shown(seconds: int) -> Mapping[str, str]:
    raise UsageError(f"a row shows a pod's own certificate: {NOT_SHOWN}")
