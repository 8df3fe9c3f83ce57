# SPDX-License-Identifier: Apache-2.0
"""What a CNI's flow log says of who dropped a probe, as causes that name policies; reading the log is left to the witness."""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from ztconform.evidence import Cause
from ztconform.kube.pods import KubePod
from ztconform.kube.profile import Drop
from ztconform.model import Ref

Selecting = Callable[[Ref, str], Sequence[str]]  # a pod as it is in the cluster, and a direction
Said = Callable[[str], str]  # a policy's name in the cluster


def causes(
    drops: Iterable[Drop], pods: Iterable[KubePod], selecting: Selecting, said: Said, *, source: Literal["hubble", "goldmane"]
) -> list[Cause]:
    """Return a cause for every drop: a rule that denies names itself, a default deny all that select the endpoint.

    `said` gives a policy's name as the case has it; `selecting` returns such names.
    """
    by_address = {address: pod for pod in pods for address in pod.addresses}
    found = []
    for drop in drops:
        endpoint = by_address.get(drop.address)
        implicit = tuple(selecting(endpoint.real, drop.direction)) if endpoint is not None and not drop.policies else ()
        found.append(
            Cause(
                nonce=drop.nonce,
                layer="l34",
                policies=tuple(map(said, drop.policies)) or implicit or tuple(map(said, drop.default_of)),
                explicit=bool(drop.policies),
                direction=drop.direction,
                endpoint=endpoint.ref if endpoint is not None else None,
                source=source,
            )
        )
    return found
