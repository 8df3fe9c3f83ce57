# SPDX-License-Identifier: Apache-2.0
"""Who alone may do cluster-scoped work now, among all runs on a cluster: whoever holds one Lease.

What that work is, and what a dead holder left of it, is left to the callers.
"""

import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from kubernetes.client.exceptions import ApiException
from tenacity import Retrying, retry_if_exception_type, stop_before_delay, wait_fixed

from ztconform.errors import ClusterError
from ztconform.kube import calls
from ztconform.kube.client import is_conflict, is_missing, translated
from ztconform.kube.lease import DURATION, LEASES, NAMESPACE, Renewal, RunLease, is_stale, manifest

NAME = "ztconform-exclusive"
_PATH = f"{LEASES}/{NAME}"
_PATIENCE = 120.0  # seconds to wait for another run's work to be over
_LOOK_AGAIN = 1.0  # seconds between two looks at a Lease that somebody else holds


class _Held(ClusterError):
    """Say who else does cluster-scoped work."""

    def __init__(self, holder: str) -> None:
        super().__init__(
            f"cluster-scoped work is being done by the run {holder} (Lease {NAMESPACE}/{NAME}): wait until it is over, "
            "or have `ztconform sweep` remove it if that run is dead"
        )


class Exclusive:
    """Hold the cluster alone, among all runs that ask for it, for work on what belongs to no namespace."""

    def __init__(self, lease: RunLease) -> None:
        self._run = lease
        # Told from any other attempt, so that a creation whose answer was lost is known for ours.
        self._holder = f"{lease.holder} {secrets.token_hex(4)}"
        self._api = lease.connection.api()
        self._renewal: Renewal | None = None

    @property
    def lost(self) -> str:
        """Return "", or why another run may be doing such work by now."""
        if self._renewal is None:
            return "the Lease for cluster-scoped work is not held"
        silent = time.monotonic() - self._renewal.renewed
        overdue = f"the Lease {NAME} could not be renewed for {silent:.0f} s" if silent >= DURATION else ""
        return self._renewal.lost or overdue

    def acquire(self, deadline: float) -> str:
        """Wait for so many seconds until nobody else holds it; return "", or the holder that died and may have left things.

        Raises ClusterError that names who holds it.
        """
        dead: list[str] = []
        again = Retrying(
            retry=retry_if_exception_type(_Held), wait=wait_fixed(_LOOK_AGAIN), stop=stop_before_delay(deadline), reraise=True
        )
        with translated(f"the Lease {NAMESPACE}/{NAME}"):
            lease = again(lambda: self._take(dead.append))
            self._renewal = Renewal(self._run.connection, self._run.clock, lease)
        return dead[-1] if dead else ""

    def _take(self, found_dead: Callable[[str], None]) -> Mapping[str, Any]:
        clock = self._run.clock
        wanted = manifest(NAME, self._holder, self._run.labels, clock.now())
        try:
            return clock.hear(calls.safely(lambda: calls.ask(self._api, "POST", LEASES, body=wanted))).body
        except ApiException as error:
            if not is_conflict(error):
                raise
        try:
            lease = clock.hear(calls.safely(lambda: calls.ask(self._api, "GET", _PATH))).body
        except ApiException as error:
            if is_missing(error):
                raise _Held("that has just ended") from error
            raise
        metadata, holder = lease["metadata"], str(lease["spec"].get("holderIdentity"))
        if holder == self._holder:
            return lease
        # Deleted and not overwritten: whoever comes back to life finds by the uid that it is no longer his.
        if is_stale(lease, clock.now()) and calls.delete(
            self._api, _PATH, uid=metadata["uid"], version=metadata["resourceVersion"]
        ):
            found_dead(holder.partition(" ")[0])
        raise _Held(holder.partition(" ")[0])

    def release(self) -> None:
        """Let others have it.

        Raises ClusterError.
        """
        if self._renewal is not None:
            self._renewal.stop()
            with translated(f"the Lease {NAMESPACE}/{NAME}"):
                calls.delete(self._api, _PATH, uid=self._renewal.uid)
            self._renewal = None
        self._api.rest_client.close()


class Alone:
    """Be alone with what belongs to no namespace from the first time that somebody asks until it is closed."""

    def __init__(self, lease: RunLease) -> None:
        self._lease = lease
        self._held: Exclusive | None = None

    def ask(self) -> None:
        """Return once no other run does such work; raises ClusterError that names who does."""
        if self._held is None:
            exclusive = Exclusive(self._lease)
            exclusive.acquire(_PATIENCE)
            self._held = exclusive

    def close(self) -> None:
        """Let others do such work; raises ClusterError if the Lease cannot be given back."""
        if self._held is not None:
            held, self._held = self._held, None
            held.release()
