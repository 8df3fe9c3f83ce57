# SPDX-License-Identifier: Apache-2.0
"""Which Kubernetes objects an entry of a case file brings, inline or from a file; what they mean is for the stacks."""

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass

from ztconform import placeholders
from ztconform.casefile import structure, yamlpos
from ztconform.casefile.problems import Document, Place, Report, listed, shown
from ztconform.casefile.topology import check_namespace
from ztconform.casefile.world import Key, World
from ztconform.model import Manifest, Ref

# Without a namespace these go to "default". Other kinds may be cluster-scoped: the stack knows.
_NAMESPACED = frozenset(
    {
        "NetworkPolicy", "Service", "ServiceAccount", "Pod", "Deployment", "ConfigMap",
        "PeerAuthentication", "AuthorizationPolicy", "RequestAuthentication", "DestinationRule", "Sidecar",
        "CiliumNetworkPolicy", "StagedNetworkPolicy", "StagedKubernetesNetworkPolicy", "NetworkSet",
        "Server", "MeshTLSAuthentication", "NetworkAuthentication", "HTTPRoute", "Gateway",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """Hold a manifest and where it is written."""

    manifest: Manifest
    place: Place

    @property
    def key(self) -> Key:
        """Return what tells this object from every other."""
        metadata = self.manifest["metadata"]
        group, _, _ = self.manifest["apiVersion"].rpartition("/")
        namespace = metadata.get("namespace", "default" if self.manifest["kind"] in _NAMESPACED else "")
        return group, self.manifest["kind"], namespace, metadata["name"]

    def __str__(self) -> str:
        return named(self.key)


def named(key: Key) -> str:
    """Return "Kind namespace/name", or "Kind name" for an object without a namespace."""
    _, kind, namespace, name = key
    return f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"


class Manifests:
    """Read manifests for one case file; a file is read once, however often it is named."""

    def __init__(self, report: Report, case: pathlib.Path, world: World) -> None:
        self._report = report
        self._folder = case.parent
        self._world = world
        self._files: dict[str, list[Document] | str] = {}

    def read(self, parent: Place, key: str, replicas: dict[Ref, int]) -> list[Entry]:
        """Return the sound manifests of a list; their placeholders may name the workloads in `replicas`."""
        entries = [entry for place in parent.items(key) for entry in self.read_one(place)]
        for entry in entries:
            self._check(entry, replicas)
        sound = [entry for entry in entries if entry.place.sound()]
        if len(sound) < len(entries) or not parent.sound(key):
            self._world.objects_sound = False
        return sound

    def read_one(self, place: Place) -> list[Entry]:
        """Return the manifests of one item of a list, without looking at what their fields say."""
        if not place.sound():
            return []
        if isinstance(place.value, dict):
            return [Entry(place.value, place)]
        documents = self._file(place.value)
        if isinstance(documents, str):
            place.fault(documents)
            return []
        tops = [Place(document, (), document.value, self._report) for document in documents]
        return [Entry(top.value, top) for top in tops if top.sound()]

    def _file(self, name: str) -> list[Document] | str:
        if name not in self._files:
            self._files[name] = self._load(name)
        return self._files[name]

    def _load(self, name: str) -> list[Document] | str:
        path = self._folder / name
        try:
            inside = path.resolve().is_relative_to(self._folder.resolve())
            if not inside:
                return f"{shown(name)} is outside this file's folder; put it beside this file or below"
            text = read_text(path)
        except Unreadable as error:
            return f"{shown(name)} {error}"
        except (OSError, RuntimeError) as error:  # RuntimeError: a loop of symbolic links, before Python 3.13
            return f"{shown(name)} cannot be read: {getattr(error, 'strerror', None) or error}"
        before = yamlpos.documents(text, str(path), self._report)
        documents = [document for document in before if document.value is not None]
        if not documents and not self._report.has(str(path)):
            return f"{shown(name)} holds no manifest"
        for document in documents:
            structure.check(document, self._report, "manifest")
        if self._report.has(str(path)):
            self._world.objects_sound = False
        return documents

    def _check(self, entry: Entry, replicas: dict[Ref, int]) -> None:
        manifest, place, world = entry.manifest, entry.place, self._world
        if manifest["kind"].endswith("List") and "items" in manifest:
            place.fault("a list of objects is not supported; write them as documents of their own", "kind")
        _, kind, namespace, _ = entry.key
        if not namespace or namespace == world.root_namespace:
            pass
        elif "namespace" in manifest["metadata"]:
            check_namespace(place, namespace, world, "metadata", "namespace")
        elif namespace not in world.namespaces and world.names_sound:
            place.fault(f"is missing; the {kind} must be in one of {listed(world.namespaces)}", "metadata", "namespace")
        if world.names_sound:
            for path, message in placeholders.check(manifest, replicas):
                place.fault(message, *path)


def headless(manifest: Manifest) -> bool:
    """Return whether a Service has no address of its own."""
    spec = manifest.get("spec")
    return isinstance(spec, dict) and spec.get("clusterIP") == "None"


def report_twice(entries: Sequence[Entry]) -> None:
    """Report objects that one list brings more than once."""
    first: dict[Key, Entry] = {}
    for entry in entries:
        earlier = first.setdefault(entry.key, entry)
        if earlier is not entry:
            line = earlier.place.at("metadata").at("name").seen_from(entry.place)
            entry.place.fault(f"{entry} is given already ({line})", "metadata", "name")


class Unreadable(Exception):
    """Why a file is no text, to stand behind its name."""


def read_text(path: pathlib.Path) -> str:
    """Return a file's text, or raise Unreadable."""
    try:
        data = path.read_bytes()
    except IsADirectoryError:
        raise Unreadable("is a folder; name a file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise Unreadable(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise Unreadable(f"is not UTF-8 (byte 0x{data[error.start]:02x} in line {line})") from None
