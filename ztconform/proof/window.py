# SPDX-License-Identifier: Apache-2.0
"""How long a denied row went on being answered after the policy was applied, from the open-loop stream; pure."""

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

from ztconform.evidence import Observation, Window
from ztconform.model import Attempt, Ref


def after(attempts: Sequence[Attempt], stream: Sequence[Observation], denied: Mapping[str, float], seen: Collection[str]) -> int:
    """Return how many of the attempts' probes were let through although they were sent after one that was denied.

    `denied` says by attempt when that one was sent, on the same client's clock: an order to send is carried out some time after
    it is given, and what passes until then was sent before.
    """
    mine = {a.id: a for a in attempts}
    return sum(through(mine[o.attempt], o, seen) and o.sent > denied.get(o.attempt, o.sent) for o in stream if o.attempt in mine)


def through(attempt: Attempt, observation: Observation, seen: Collection[str]) -> bool:
    """Return whether a probe was let through: a server saw it, or it was answered by the target and not by a proxy.

    A resolver that is not ours carries no mark: whatever it answers has come through.
    """
    answered = observation.signal == "answered" and (bool(observation.backend) or attempt.probe.kind == "dns")
    return answered or observation.nonce in seen


def measure(
    attempts: Sequence[Attempt],
    stream: Sequence[Observation],
    before: Mapping[Ref, float],
    spacing: float,
    seen: Collection[str],
) -> Window | None:
    """Return the row's window over all its attempts, or None if the stream does not show one.

    `before` is the marker in front of apply on each client's own clock; `seen` are nonces that a server saw: one that reached
    it was let through, whatever its client heard. A row was measured only if each attempt was sent after the marker and the
    last one sent was not let through.
    """
    worst, sent = 0.0, 0
    for attempt in attempts:
        marker = before.get(attempt.probe.source)
        mine = [o for o in stream if o.attempt == attempt.id]
        if marker is None or not mine:
            return None
        after = [o for o in mine if o.sent >= marker and o.signal != "not-run"]
        if not after:
            return None
        leaked = [o for o in after if through(attempt, o, seen)]
        if max(after, key=lambda o: o.sent) in leaked:
            return None
        sent += len(after)
        worst = max([worst, *(o.sent - marker for o in leaked)])
        times = sorted(o.sent for o in mine)
        # A busy machine sends later than planned: the figure is worth no more than the widest gap.
        spacing = max([spacing, *(b - a for a, b in pairwise(times))])
    return Window(seconds=worst, spacing=spacing, sent=sent) if attempts else None
