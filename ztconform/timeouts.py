# SPDX-License-Identifier: Apache-2.0
"""How long each phase may take, all in seconds; a stack hands one of these to the proof protocol."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Bound every wait of a proof, in seconds."""

    denied: float  # a probe that is expected to be denied gives up after this
    captured: float  # which it has on top where its client's own proxy connects, and shows late what it met
    allowed: float  # a probe that is expected to pass; survives two SYN retransmissions (1 s + 2 s)
    converge: float  # after apply, every row must show its expectation within this
    hold: float  # and then keep showing it for at least this
    hold_rounds: int  # in at least so many consecutive rounds, the one that showed convergence included
    spacing: float  # between two probes of one denied row in the open-loop stream
    stream_rate: float  # probes per second over all denied rows; more rows than that widen the spacing
    relabelled: float = 0.0  # on top of `converge` where a step changes labels, which a CNI may be slow to act on by design


# Measured on two cores: a local connection takes < 5 ms even with both of them busy, so 0.4 s of silence is long. A client's own
# proxy answers after 0.3 s for a server that it cannot reach, and was seen to be 0.1 s late with ten processes to a core.
LAB = Timeouts(denied=0.4, captured=0.6, allowed=3.5, converge=2.0, hold=0.5, hold_rounds=2, spacing=0.01, stream_rate=1000)

# An entry is known to SPIRE's server after half a second and to its agent after another, and after an outage within five; each
# probe that shows an SVID asks for it first, so that there are fewer.
LAB_SPIRE = replace(LAB, converge=15.0, spacing=0.05, stream_rate=100)

# As a cluster's data plane converges, an exec away from its observer: a changed policy within a second or a few, on a busy
# machine 20 s; what a CNI waits on purpose when labels change comes on top of that.
KUBERNETES = Timeouts(denied=1.0, captured=0.0, allowed=3.5, converge=60.0, hold=3.0, hold_rounds=2, spacing=0.1, stream_rate=200)
