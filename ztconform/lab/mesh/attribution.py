# SPDX-License-Identifier: Apache-2.0
"""Which policies denied what an access log entry tells of: by name for a DENY, by selection for the default of ALLOW.

Joining the entry with a probe is left to the caller.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from ztconform.lab.inventory import LabPod
from ztconform.lab.mesh.authorizationpolicy import AuthorizationPolicy
from ztconform.lab.mesh.rbac import applying
from ztconform.lab.mesh.view import MeshConfig
from ztconform.mesh.denial import policy_of
from ztconform.model import Ref

_DENIED = "rbac_access_denied_matched_policy["
_NO_RULE = "none"


@dataclass(frozen=True, slots=True)
class Denial:
    """Tell why a proxy denied: a DENY rule matched, or none of the ALLOW policies did that select the pod."""

    explicit: bool
    policies: tuple[Ref, ...]  # one for an explicit denial


def denial(details: str, pod: LabPod, policies: Iterable[AuthorizationPolicy], config: MeshConfig) -> Denial | None:
    """Return why the proxy of a pod denied, or None where RBAC did not.

    `details` is %RESPONSE_CODE_DETAILS% of a request, or %CONNECTION_TERMINATION_DETAILS% of a connection that carries no
    HTTP; `policies` are those that were in force then.
    """
    if not details.startswith(_DENIED):
        return None
    name = details.removeprefix(_DENIED).removesuffix("]")
    if name != _NO_RULE:
        return Denial(True, (policy_of(name),))
    selecting = (each for each in applying(pod, policies, config) if each.action == "ALLOW" and not each.dry_run)
    return Denial(False, tuple(each.ref for each in selecting))
