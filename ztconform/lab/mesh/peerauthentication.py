# SPDX-License-Identifier: Apache-2.0
"""What a security.istio.io PeerAuthentication says: whether clients of the selected pods must prove who they are.

Which of several policies is in force on a port is left to `modes`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from ztconform.lab.fields import Field, shown
from ztconform.lab.labels import port_number
from ztconform.lab.mesh.policyobject import DRY_RUN, read_object, read_workload_selector
from ztconform.lab.mesh.view import Mode
from ztconform.lab.selectors import EVERYTHING, LabelSelector
from ztconform.model import Ref

_NUMBER = re.compile(r"[1-9][0-9]{0,4}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAuthentication:
    """Set the mode of the selected pods of one namespace, or of the whole mesh from the root namespace."""

    ref: Ref
    selector: LabelSelector
    mode: Mode | None  # None: UNSET, which inherits
    ports: Mapping[int, Mode | None] = field(default_factory=dict)  # by the workload's own port; None: UNSET

    @property
    def selects_workloads(self) -> bool:
        """Return whether the policy has a selector that names a label; without one it is the namespace's or the mesh's."""
        return self.selector != EVERYTHING


def parse_peer_authentication(manifest: object) -> PeerAuthentication:
    """Return the policy that a manifest describes; raises Rejected for whatever Istio would refuse."""
    ref, spec, dry_run = read_object(manifest, "PeerAuthentication")
    if dry_run:
        dry_run.refuse(f"must not be there: only an AuthorizationPolicy supports {DRY_RUN}")
    fields = spec.object(("selector", "mtls", "portLevelMtls"))
    selector = read_workload_selector(fields)
    if "portLevelMtls" in fields and selector == EVERYTHING:
        fields["portLevelMtls"].refuse("needs a selector with labels: a namespace or the mesh cannot have modes by port")
    return PeerAuthentication(
        ref=ref,
        selector=selector,
        mode=_read_mode(fields["mtls"]) if "mtls" in fields else None,
        ports=_read_ports(fields["portLevelMtls"]) if "portLevelMtls" in fields else {},
    )


def _read_mode(mtls: Field) -> Mode | None:
    fields = mtls.object(("mode",))
    if "mode" not in fields:
        return None
    mode = fields["mode"].one_of("UNSET", "DISABLE", "PERMISSIVE", "STRICT")
    return None if mode == "UNSET" else cast(Mode, mode)


def _read_ports(whole: Field) -> dict[int, Mode | None]:
    if not isinstance(whole.value, Mapping):
        whole.refuse(f"must be a mapping, not {shown(whole.value)}")
    if not whole.value:
        whole.refuse("must not be empty")
    ports: dict[int, Mode | None] = {}
    for key, value in whole.value.items():
        entry = Field(whole.title, f"{whole.path}[{shown(key)}]", value)
        # YAML reads `8080:` as an integer, which kubectl turns into the string that a JSON key has to be.
        number = int(key) if isinstance(key, str) and _NUMBER.fullmatch(key) else key
        port = port_number(Field(entry.title, entry.path, number))
        if port in ports:
            entry.refuse(f"port {port} is there twice")
        ports[port] = _read_mode(entry)
    return ports
