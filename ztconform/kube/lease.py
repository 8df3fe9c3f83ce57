# SPDX-License-Identifier: Apache-2.0
"""Which runs live: each renews a Lease in a namespace that all runs share, by the API server's clock.

What becomes of the objects of a run that no longer does is left to `sweep`.
"""

import secrets
import threading
import time
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

import urllib3
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from tenacity import Retrying, retry_if_exception_type, stop_before_delay, wait_fixed

from ztconform.errors import ClusterError
from ztconform.kube import calls
from ztconform.kube.client import FIELD_MANAGER, Connection, is_conflict, is_missing, translated
from ztconform.kube.labels import MANAGED, MANAGER, Labels

NAMESPACE = "ztconform-runs"
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
DURATION = 60  # seconds without a renewal after which a run counts as dead
_EVERY = 10.0  # seconds between two renewals
_AGAIN = 2.0  # seconds after a renewal that failed
_CALL = 5.0  # seconds for a renewal
_START = 30.0  # seconds in which a run has its Lease; a namespace that is being deleted is there for about six
_NAMESPACE_PATH = f"/api/v1/namespaces/{NAMESPACE}"
_FORBIDDEN, _INVALID = 403, 422


class ServerClock:
    """Tell the time of the API server, by the last Date header that was heard; our own before the first."""

    def __init__(self) -> None:
        self._heard = (datetime.now(UTC), time.monotonic())

    def hear(self, answer: calls.Answer) -> calls.Answer:
        """Take the time from an answer, and return the answer."""
        if answer.date is not None:
            self._heard = (answer.date, time.monotonic())
        return answer

    def now(self) -> datetime:
        """Return the time there, to within about a second."""
        then, since = self._heard
        return then + timedelta(seconds=time.monotonic() - since)


def silence(lease: Mapping[str, Any], now: datetime) -> float:
    """Return the seconds since a Lease was last renewed; `now` is the API server's, as are the Leases' own times."""
    spec = lease.get("spec") or {}
    last = spec.get("renewTime") or spec.get("acquireTime") or lease["metadata"]["creationTimestamp"]
    return (now - datetime.fromisoformat(last)).total_seconds()


def duration(lease: Mapping[str, Any]) -> int:
    """Return the seconds of silence after which the holder of a Lease counts as dead."""
    return int((lease.get("spec") or {}).get("leaseDurationSeconds") or DURATION)


def is_stale(lease: Mapping[str, Any], now: datetime) -> bool:
    """Return whether the holder of a Lease counts as dead."""
    return silence(lease, now) >= duration(lease)


class Renewal:
    """Renew one Lease from a thread of its own, through outages of the API server, until it is stopped or the Lease is gone."""

    def __init__(self, connection: Connection, clock: ServerClock, lease: Mapping[str, Any]) -> None:
        self.uid = str(lease["metadata"]["uid"])
        self.path = f"{LEASES}/{lease['metadata']['name']}"
        self.lost = ""
        self.renewed = time.monotonic()
        self._api = connection.api()
        self._clock = clock
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"renew {self.path}", daemon=True)
        self._thread.start()

    def _renew(self) -> None:
        pause = _EVERY
        while not self._stopped.wait(pause):
            started = time.monotonic()
            body = {"metadata": {"uid": self.uid}, "spec": {"renewTime": _stamp(self._clock.now())}}
            try:
                answer = calls.ask(self._api, "PATCH", self.path, timeout=_CALL, body=body, content=calls.MERGE_PATCH)
            except ApiException as error:
                if is_missing(error) or is_conflict(error) or error.status == _INVALID:
                    self.lost = f"the Lease {self.path.rpartition('/')[2]} was taken away"
                    return
                pause = _AGAIN
            except urllib3.exceptions.HTTPError:
                pause = _AGAIN
            else:
                self._clock.hear(answer)
                self.renewed, pause = started, _EVERY

    def stop(self) -> None:
        """Renew no more; a call under way is waited for, so that none comes after the deletion."""
        self._stopped.set()
        self._thread.join(_CALL + 1)
        self._api.rest_client.close()


class _GoingAway(ClusterError):
    """Say that the namespace is being deleted, for the last of the runs before us; it can be made again when it is gone."""

    def __init__(self) -> None:
        super().__init__(f"the namespace {NAMESPACE} is still being deleted; see  kubectl get namespace {NAMESPACE} -o yaml")


class RunLease:
    """Say for as long as it is open that a run lives; the first one makes the namespace, the last one removes it."""

    def __init__(self, connection: Connection, labels: Labels) -> None:
        self.connection = connection
        self.labels = labels
        self.clock = ServerClock()
        self.holder = "-".join(filter(None, (labels.run, labels.worker)))
        self._api = connection.api()
        self._renewal: Renewal | None = None

    @property
    def name(self) -> str:
        """Return the name of the Lease."""
        return f"ztconform-run-{self.holder}"

    @property
    def lost(self) -> str:
        """Return "", or why this run counts as dead for everybody else: whatever it has in the cluster is being removed."""
        return self._renewal.lost if self._renewal else ""

    def open(self) -> None:
        """Take the Lease and renew it every 10 s.

        Raises ClusterError.
        """
        doing = f"the Lease {NAMESPACE}/{self.name}"
        again = Retrying(
            retry=retry_if_exception_type(_GoingAway), wait=wait_fixed(0.5), stop=stop_before_delay(_START), reraise=True
        )
        with translated(doing):
            self._renewal = Renewal(self.connection, self.clock, again(self._take))

    def _take(self) -> Mapping[str, Any]:
        """Return our Lease, in a namespace of which its last remover knows that it is not empty.

        Between a remover's look at the Leases and its deletion a Lease may come. So whoever has made one changes the namespace,
        and the remover deletes only the version that it had read before it looked: either it fails, or we see here that it did.
        """
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        try:
            self._make_namespace()
            lease = manifest(self.name, self.holder, self.labels, self.clock.now())
            made = self._ask("PATCH", f"{LEASES}/{self.name}", body=lease, query=query, content=calls.APPLY_PATCH)
            namespace = self._ask("GET", _NAMESPACE_PATH)
            if is_ours(namespace):
                note = {f"{self.labels.prefix}/last": f"{self.holder} {secrets.token_hex(4)}"}
                change = {"metadata": {"annotations": note}}
                namespace = self._ask("PATCH", _NAMESPACE_PATH, body=change, content=calls.MERGE_PATCH)
        except ApiException as error:
            if is_missing(error) or _is_terminating(error):
                raise _GoingAway from error
            raise
        if "deletionTimestamp" in namespace["metadata"]:
            raise _GoingAway
        return made

    def _make_namespace(self) -> None:
        """Have the namespace, and the time there; one that is there already is taken as it is."""
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": {MANAGED: MANAGER}}}
        try:
            self._ask("POST", "/api/v1/namespaces", body=body)
        except ApiException as error:
            if not is_conflict(error):
                raise
            self._ask("GET", _NAMESPACE_PATH)  # a refusal does not tell the time

    def close(self) -> None:
        """Give the Lease back, and remove the namespace if no other run has one.

        Raises ClusterError.
        """
        if self._renewal is not None:
            self._renewal.stop()
            with translated(f"the Lease {NAMESPACE}/{self.name}"):
                calls.delete(self._api, self._renewal.path, uid=self._renewal.uid)
                remove_namespace(self._api)
            self._renewal = None
        self._api.rest_client.close()

    def _ask(self, method: str, path: str, **named: Any) -> Mapping[str, Any]:
        """Make a call that may be made twice: each of them either names what it makes or finds it there."""
        return self.clock.hear(calls.safely(lambda: calls.ask(self._api, method, path, **named), deadline=_START)).body

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def manifest(name: str, holder: str, labels: Labels, now: datetime) -> Mapping[str, Any]:
    """Return a Lease that was taken now."""
    stamp = _stamp(now)
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": dict(labels.ours())},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": DURATION, "acquireTime": stamp, "renewTime": stamp},
    }


def is_ours(namespace: Mapping[str, Any]) -> bool:
    """Return whether the namespace of the Leases is ours to remove."""
    return (namespace["metadata"].get("labels") or {}).get(MANAGED) == MANAGER


def unused_namespace(api: client.ApiClient, besides: Collection[str] = ()) -> Mapping[str, Any] | None:
    """Return the namespace if it is there, ours to remove, and without a Lease besides those of these uids.

    Raises what the kubernetes client raises.
    """
    try:
        namespace = calls.safely(lambda: calls.ask(api, "GET", _NAMESPACE_PATH)).body
    except ApiException as error:
        if is_missing(error):
            return None
        raise
    if not is_ours(namespace) or "deletionTimestamp" in namespace["metadata"]:
        return None
    leases = calls.safely(lambda: calls.ask(api, "GET", LEASES)).body.get("items") or ()
    return None if {lease["metadata"]["uid"] for lease in leases} - set(besides) else namespace


def remove_namespace(api: client.ApiClient) -> bool:
    """Remove the namespace if nobody uses it any more; return whether it goes.

    Raises what the kubernetes client raises.
    """
    namespace = unused_namespace(api)
    if namespace is None:
        return False
    metadata = namespace["metadata"]
    return calls.delete(api, _NAMESPACE_PATH, uid=metadata["uid"], version=metadata["resourceVersion"])


def _is_terminating(error: ApiException) -> bool:
    """Return whether the API server takes nothing new because the namespace is being deleted."""
    return error.status == _FORBIDDEN and "because it is being terminated" in str(error.body)


def _stamp(instant: datetime) -> str:
    """Return a MicroTime, which is refused without all of its six digits."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
