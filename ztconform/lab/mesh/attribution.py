# SPDX-License-Identifier: Apache-2.0
"""Which policies denied what an access log entry tells of: by name for a DENY, by selection for the default of ALLOW.

Joining the entry with a probe is left to the caller.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ztconform.errors import InternalError
from ztconform.lab.inventory import LabPod
from ztconform.lab.mesh.authorizationpolicy import AuthorizationPolicy
from ztconform.lab.mesh.rbac import applying
from ztconform.lab.mesh.view import MeshConfig
from ztconform.model import Ref

_DENIED = "rbac_access_denied_matched_policy["
_RULE = re.compile(r"ns\[([^\[\]]+)\]-policy\[([^\[\]]+)\]-rule\[([0-9]+)\]")
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


def policy_of(rule: str) -> Ref:
    """Return the policy that a rule belongs to, by the name that Istio gives it."""
    found = _RULE.fullmatch(rule)
    if not found:
        raise InternalError(f"the proxy names a rule {rule!r} that is not of the lab's making; please report this")
    return Ref(found[1], found[2])
