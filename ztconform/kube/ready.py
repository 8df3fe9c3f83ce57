# SPDX-License-Identifier: Apache-2.0
"""When what a stack installed is ready, and if that takes too long, which part is not and why.

What has to be ready is told by the stack.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ztconform.errors import ClusterError
from ztconform.kube import inventory
from ztconform.kube.client import Connection
from ztconform.kube.inventory import Controller, Rollout, Trouble

_EVERY = 0.5  # seconds
_TELL = 15.0
_DEAF = 20.0  # without any answer of the API server
_PULLING = 45.0  # an image that could not be pulled for so long is not going to come


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """Name a component that must run."""

    kind: Controller
    namespace: str  # "" is all of them, where it is known by labels
    name: str
    optional: bool = False  # nothing is wanted of one that is not installed
    # A label by which it is known in place of its name, which then only names it in a message: of a deployment its own, of a
    # daemonset one by which it selects its pods.
    selector: str = ""
    elsewhere: str = ""  # another namespace in which it may be instead


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Name a condition that an object must have; nothing is wanted where the object `given` is not there or may not be read."""

    path: str
    type: str
    given: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """Say all that must be there."""

    what: str = "the cluster"  # for the line that says what is waited for
    wants: tuple[Want, ...] = ()
    crds: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()
    webhooks: tuple[str, ...] = ()  # mutating ones that must be trusted by now, where they are there and may be read
    annotations: tuple[str, ...] = ()  # that every node must have, as where something is set up on each
    cluster: bool = True  # also the nodes, the service proxy and the resolver


@dataclass(frozen=True, slots=True)
class Lack:
    """Say what is not ready, and where its pods are found."""

    text: str
    namespace: str = ""
    name: str = ""
    selector: str = ""


def wait(connection: Connection, goal: Goal, within: float, notify: Callable[[str], None]) -> None:
    """Return when all of it is ready; raises ClusterError that names what is not, and the cure where one is known."""
    began = told = heard = time.monotonic()
    pulling: float | None = None  # since when an image cannot be pulled
    while True:
        try:
            lacks = missing(connection, goal)
            trouble = next((trouble for lack in lacks for trouble in _troubles(connection, lack)), None)
        except ClusterError:
            # An API server that just started, on a machine that is busy with images, loses a call now and then.
            if time.monotonic() - heard > _DEAF:
                raise
            time.sleep(_EVERY)
            continue
        if not lacks:
            return
        now = heard = time.monotonic()
        pulling = (pulling or now) if trouble and trouble.about_image else None
        if now - began > within or (pulling and now - pulling > _PULLING):
            raise ClusterError(f"not ready after {now - began:.0f} s: {lacks[0].text}{_why(connection, lacks[0], trouble)}")
        if now - told > _TELL:
            told = now
            notify(f"after {now - began:.0f} s: {lacks[0].text}{_why(connection, lacks[0], trouble)}")
        time.sleep(_EVERY)


def await_ranges(connection: Connection, within: float) -> None:
    """Wait until every node has a range of pod addresses, as a CNI's installer may ask for; one that has its own needs none."""
    began = time.monotonic()
    while time.monotonic() - began < within and not all(node.pods for node in inventory.nodes(connection)):
        time.sleep(_EVERY)


def missing(connection: Connection, goal: Goal) -> Sequence[Lack]:
    """Return what is not ready now."""
    lacks: list[Lack] = []
    for want in goal.wants:
        found = sought(connection, want)
        if not found and not want.optional:
            lacks.append(Lack(f"{want.kind} {want.namespace or '*'}/{want.name}: not there"))
        lacks += [_lack(one) for one in found if not one.done]
    lacks += [Lack(f"the custom resource {crd} is not served") for crd in goal.crds if not inventory.established(connection, crd)]
    lacks += [lack for condition in goal.conditions if (lack := _unmet(connection, condition))]
    lacks += [Lack(f"the webhook {name} has no certificate yet") for name in goal.webhooks if _is_untrusted(connection, name)]
    for node in inventory.nodes(connection) if goal.annotations else ():
        lacks += [Lack(f"node {node.name} has no {key} yet") for key in goal.annotations if key not in node.annotations]
    if goal.cluster:
        nodes = inventory.nodes(connection)
        lacks += [Lack(f"node {node.name} is not Ready: {node.why}") for node in nodes if not node.ready]
        if not nodes:
            lacks.append(Lack("the cluster has no nodes"))
        proxy = inventory.rollout(connection, "daemonset", inventory.KUBE_SYSTEM, "kube-proxy")
        if proxy is not None and not proxy.done:
            lacks.append(_lack(proxy))
        resolvers = inventory.deployments(connection, inventory.KUBE_SYSTEM, inventory.DNS_LABEL)
        lacks += [_lack(resolver) for resolver in resolvers if not resolver.done]
    return lacks


def sought(connection: Connection, want: Want) -> Sequence[Rollout]:
    """Return what is there of a component."""
    if want.selector and want.kind == "deployment":
        return inventory.deployments(connection, want.namespace, want.selector)
    if want.selector:
        found = inventory.daemon_sets(connection, want.selector)
        return [one for one in found if want.namespace in ("", one.namespace)]
    for namespace in filter(None, (want.namespace, want.elsewhere)):
        if one := inventory.rollout(connection, want.kind, namespace, want.name):
            return [one]
    return []


def _unmet(connection: Connection, condition: Condition) -> Lack | None:
    if inventory.found(connection, condition.given) is None:
        return None
    what = "/".join(condition.path.split("/")[-2:])
    there = inventory.found(connection, condition.path)
    if there is None:
        return Lack(f"{what}: not there")
    conditions = list((there.get("status") or {}).get("conditions") or [])
    asked = next((one for one in conditions if one.get("type") == condition.type), None)
    if asked is not None and asked.get("status") == "True":
        return None
    # An operator may say why elsewhere: Calico's, that it is Degraded (seen with v1.42.3).
    others = [one for one in conditions if one is not asked and one.get("status") == "True"]
    told = [one.get("message") for one in (asked or {}, *others)] + [(asked or {}).get("reason")]
    said = next((" ".join(str(words).split())[:300] for words in told if words), "")
    if asked is not None:
        return Lack(f"{what} is not {condition.type}" + (f": {said}" if said else ""))
    return Lack(f"{what} does not say yet whether it is {condition.type}")


def _is_untrusted(connection: Connection, name: str) -> bool:
    """Return whether a webhook lacks the bundle that its server writes once it is ready; without it, pods are not injected."""
    there = inventory.found(connection, f"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{name}") or {}
    return any(not (one.get("clientConfig") or {}).get("caBundle") for one in there.get("webhooks") or [])


def _lack(rollout: Rollout) -> Lack:
    return Lack(str(rollout), rollout.namespace, rollout.name, rollout.selector)


def _troubles(connection: Connection, lack: Lack) -> Sequence[Trouble]:
    return inventory.troubles(connection, lack.namespace, lack.selector) if lack.selector else ()


def _why(connection: Connection, lack: Lack, trouble: Trouble | None) -> str:
    if trouble is not None and trouble.about_image:
        return f"; {trouble}; load it into kind's nodes by --ztc-load-image, or name one that is there by --ztc-values"
    if trouble is not None:
        words = inventory.last_words(connection, trouble)
        return f"; {trouble}" + (f"; it logged: {words}" if words else "")
    # A pod that no container of has begun yet has its reason in events alone: a CNI that fails, for one.
    warning = inventory.last_warning(connection, lack.namespace, f"{lack.name}-") if lack.name else ""
    return f"; {warning}" if warning else ""
