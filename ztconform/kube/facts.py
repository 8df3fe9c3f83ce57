# SPDX-License-Identifier: Apache-2.0
"""What a cluster states of itself to a proof: its stack's profile, as it is on these nodes and under these settings; pure."""

from ztconform.cluster import Facts, Resolver
from ztconform.kube.nodes import Nodes
from ztconform.kube.privileged import NOTE, features
from ztconform.kube.profile import Profile
from ztconform.timeouts import Timeouts


def stated(profile: Profile, nodes: Nodes, timeouts: Timeouts, resolver: Resolver, *, privileged: bool) -> Facts:
    """Return the facts of a cluster."""
    return Facts(
        stack=profile.stack,
        dialects=profile.dialects,
        features=features(profile.features, len(nodes.used)),
        versions=profile.versions,
        signatures=profile.signatures,
        timeouts=timeouts,
        resolver=resolver,
        nodes=nodes.used,
        notes=(*profile.notes, *([NOTE] if privileged else [])),
        untested=nodes.missing(),
        closed=profile.mesh is not None and profile.mesh.closed,
    )
