# SPDX-License-Identifier: Apache-2.0
"""What each step of a case file changes, checked against what is there by then; doing it is for the stacks."""

from typing import Literal

from ztconform.casefile.manifests import Entry, Manifests, headless, named, report_twice
from ztconform.casefile.problems import Place, listed, shown, suggestion
from ztconform.casefile.rows import Ids, read_rows
from ztconform.casefile.topology import check_metadata_name, read_ref, read_workload
from ztconform.casefile.world import RESOLVER, Key, World, to_ref
from ztconform.model import Lifecycle, Manifest, Ref, Step, Workload

_ENDS: tuple[Literal["complete", "remove"], ...] = ("complete", "remove")
_GRACE = 30  # seconds, as terminationGracePeriodSeconds has by default


class Steps:
    """Read steps in order; each leaves the world as it is for the next."""

    def __init__(self, world: World, manifests: Manifests, ids: Ids) -> None:
        self._world = world
        self._manifests = manifests
        self._ids = ids

    def foresee(self, root: Place) -> None:
        """Note what later steps start, so that a row that is too early says so."""
        for step in root.items("steps"):
            for place in step.items("start"):
                name, namespace = place.get("name"), place.get("namespace")
                if name is not None and namespace is not None:
                    self._world.later.setdefault(Ref(namespace, name), f"steps[{step.path[-1]}]")

    def first(self, root: Place) -> Step:
        """Return step 0: the top level's manifests and rows."""
        applied = self._apply(root, "manifests", self._world.replicas())
        return Step(apply=applied, rows=read_rows(root.items("expect"), self._world, self._ids))

    def read(self, place: Place) -> Step:
        """Return one of `steps`."""
        if isinstance(place.value, dict) and not any(value for key, value in place.value.items() if key != "name"):
            place.fault("a step must change or expect something")
        # A manifest may name what this step starts as well as what runs before it.
        replicas = self._world.replicas()
        started = {one: _replicas(item) for item in place.items("start") if (one := _ref_of(item))}
        applied = self._apply(place, "apply", {**replicas, **started})
        deleted = self._delete(place)
        relabel = self._relabel(place)
        lifecycle = self._lifecycle(place)
        rows = read_rows(place.items("expect"), self._world, self._ids)
        return Step(name=place.get("name", ""), apply=applied, delete=deleted, relabel=relabel, lifecycle=lifecycle, rows=rows)

    def services(self, root: Place) -> tuple[Manifest, ...]:
        """Return the Services beside each workload's own."""
        entries = self._manifests.read(root, "services", self._world.replicas())
        report_twice(entries)
        for entry in entries:
            if entry.key[:2] != ("", "Service"):
                entry.place.fault(f"{shown(entry.manifest['kind'])} is no Service (apiVersion: v1, kind: Service)", "kind")
            else:
                self._take(entry)
        return tuple(entry.manifest for entry in entries)

    def _apply(self, place: Place, key: str, replicas: dict[Ref, int]) -> tuple[Manifest, ...]:
        entries = self._manifests.read(place, key, replicas)
        report_twice(entries)
        for entry in entries:
            self._take(entry)
        return tuple(entry.manifest for entry in entries)

    def _take(self, entry: Entry) -> None:
        group, kind, namespace, name = entry.key
        if (group, kind) == ("", "Service"):
            service = Ref(namespace, name)
            if service in self._world.services and entry.key not in self._world.applied:
                entry.place.fault(f"{service} is the workload's own Service; take another name", "metadata", "name")
            self._world.services[service] = headless(entry.manifest)
        self._world.applied[entry.key] = entry.manifest

    def _delete(self, place: Place) -> tuple[Manifest, ...]:
        applied_here = {entry.key for item in place.items("apply") for entry in self._manifests.read_one(item)}
        found: dict[Key, Manifest] = {}
        for item in place.items("delete"):
            for key, where in self._to_delete(item):
                if key in found:
                    where.fault(f"{named(key)} is deleted already by this step")
                elif key in applied_here:
                    where.fault(f"{named(key)} is applied by this very step")
                elif key in self._world.applied:
                    found[key] = self._world.applied[key]
        for key in found:
            del self._world.applied[key]
            if key[:2] == ("", "Service"):
                self._world.services.pop(Ref(*key[2:]), None)
        return tuple(found.values())

    def _to_delete(self, item: Place) -> list[tuple[Key, Place]]:
        """Return the applied objects that one item of `delete` means, and report what has not been applied."""
        if not item.sound():
            return []
        if isinstance(item.value, dict) and "metadata" not in item.value:
            return [(key, item) for key in self._by_name(item)]
        pairs = [(entry.key, entry.place) for entry in self._manifests.read_one(item)]
        for key, where in pairs:
            if key not in self._world.applied and self._world.objects_sound:
                where.fault(self._not_applied(key))
        return pairs

    def _by_name(self, item: Place) -> list[Key]:
        kind, namespace, name = item.get("kind"), item.get("namespace"), item.get("name")
        group = item.get("apiVersion", "").rpartition("/")[0] if item.has("apiVersion") else None
        matches = [
            key
            for key in self._world.applied
            if key[1:] in ((kind, namespace or "default", name), (kind, namespace or "", name)) and group in (None, key[0])
        ]
        if not matches and self._world.objects_sound:
            item.fault(self._not_applied((group or "", kind, namespace or "", name)))
        elif len(matches) > 1:
            item.fault(f"{named(matches[0])} is of several API groups ({listed([key[0] for key in matches])}); add apiVersion")
        return matches[:1]

    def _not_applied(self, key: Key) -> str:
        known = [named(one) for one in self._world.applied]
        return f"{named(key)} is not applied at this point" + (suggestion(named(key), known) or f" (applied: {listed(known)})")

    def _relabel(self, place: Place) -> tuple[tuple[Ref, dict[str, str | None]], ...]:
        relabel, world, found = place.at("relabel"), self._world, []
        for text, item in relabel.fields("pods"):
            if item.sound() and (ref := world.find_running(item, text)):
                found.append((ref, item.value))
        for name, item in relabel.fields("namespaces"):
            if not item.sound():
                continue
            if name not in world.namespaces and world.names_sound:
                item.fault(f"namespace {shown(name)} is not declared under `namespaces`{suggestion(name, world.namespaces)}")
            check_metadata_name(item, name, "")
            found.append((Ref(name, ""), item.value))
        return tuple(found)

    def _lifecycle(self, step: Place) -> tuple[Lifecycle, ...]:
        """Return what ends, then what starts, so that a step can hand on an address; restarts come last."""
        world, actions = self._world, []
        touched: dict[Ref, str] = {}

        def running(place: Place, text: object, key: str) -> Ref | None:
            ref = world.find_running(place, text) if isinstance(text, str) and place.sound() else None
            return ref if ref and _once(place, ref, key, touched) else None

        for item in step.items("terminate"):
            if ref := running(item.at("workload"), item.get("workload"), "terminate"):
                actions.append(Lifecycle(action="terminate", workload=ref, grace=float(item.get("graceSeconds", _GRACE))))
                if ref in world.terminating:
                    item.fault(f"{ref} is terminating already", "workload")
                world.terminating.add(ref)
        for end in _ENDS:
            for item in step.items(end):
                if ref := running(item, item.value, end):
                    actions.append(Lifecycle(action=end, workload=ref))
                    world.end(ref, f"does not run any more: steps[{step.path[-1]}] {end}s it")
        for item in step.items("start"):
            if started := self._start(item, touched):
                actions.append(started)
        for item in step.items("restart"):
            if ref := running(item, item.value, "restart"):
                actions.append(Lifecycle(action="restart", workload=ref))
        return tuple(actions)

    def _start(self, item: Place, touched: dict[Ref, str]) -> Lifecycle | None:
        world = self._world
        ref = read_ref(item, world)
        if ref is None:
            return None
        if ref in world.running or ref == RESOLVER.ref:
            item.fault(f"workload {ref} runs already", "name")
            return None
        touched.setdefault(ref, "start")
        reuse = self._reuse(item)
        workload: Workload | None = read_workload(item, ref)
        if ("", "Service", ref.namespace, ref.name) in world.applied and workload and _has_service(workload):
            item.fault(f"an applied Service is called {ref} already, and this workload's own would be too", "name")
        world.start(ref, workload)
        world.later.pop(ref, None)
        return Lifecycle(action="start", workload=ref, spec=workload, reuse=reuse) if workload else None

    def _reuse(self, item: Place) -> Ref | None:
        text = item.get("reuseAddressOf")
        if text is None:
            return None
        world, old = self._world, to_ref(text)
        if old in world.running:
            item.fault(f"{old} still runs; complete or remove it before its address is free", "reuseAddressOf")
        elif old not in world.ended and world.names_sound:
            near = suggestion(str(old), [str(one) for one in world.ended])
            item.fault(f"no workload '{old}' has ended{near}", "reuseAddressOf")
        elif old in world.ended and old not in world.reusable:
            item.fault(f"another workload has taken over the address of {old} already", "reuseAddressOf")
        world.reusable.discard(old)
        return old


def _once(place: Place, ref: Ref, key: str, touched: dict[Ref, str]) -> bool:
    if ref in touched:
        place.fault(f"{ref} is under {touched[ref]} of this step already")
        return False
    touched[ref] = key
    return True


def _has_service(workload: Workload) -> bool:
    return any(port.service is not None for port in workload.ports)


def _ref_of(item: Place) -> Ref | None:
    name, namespace = item.get("name"), item.get("namespace")
    return Ref(namespace, name) if name and namespace else None


def _replicas(item: Place) -> int:
    return int(item.get("replicas", 1))
