# SPDX-License-Identifier: Apache-2.0
"""The conversations with all agents of a cluster, each begun once and anew when it was cut off; and what servers have seen.

What is asked is left to `cluster`.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from time import monotonic
from typing import Any

from ztconform.agent.prober import unsent
from ztconform.evidence import Sighting
from ztconform.kube.link import Link, LinkError, OpenPipe, Pending
from ztconform.kube.pods import KubePod
from ztconform.model import Ref
from ztconform.proof import witness

_GREETING = 30.0  # seconds: many execs at once on a small node
_AGAIN = 5.0  # seconds to begin anew what was cut off
_SEEN = 20.0  # seconds for a server's whole log


class Links:
    """Keep one conversation with each pod."""

    def __init__(self, open_pipe: Callable[[KubePod], OpenPipe]) -> None:
        self._open_pipe = open_pipe
        self._links: dict[Ref, Link] = {}
        self._logs: dict[Ref, list[Sighting] | None] = {}

    def open(self, pods: Iterable[KubePod]) -> None:
        """Begin conversations side by side, and wait for the greetings; raises LinkError."""
        begun = {pod.ref: Link(str(pod.ref), self._open_pipe(pod)) for pod in pods}
        self._links.update(begun)
        self._logs.update({ref: [] for ref in begun})
        deadline = monotonic() + _GREETING
        for link in begun.values():
            link.greeted.result(deadline)

    def of(self, pods: Mapping[Ref, KubePod | None]) -> dict[Ref, Link | None]:
        """Return the living conversations with these pods, begun anew where they were cut off; None where that fails."""
        anew = []
        for ref, pod in pods.items():
            link = self._links.get(ref)
            if pod is not None and (link is None or link.dead):
                self._links[ref] = Link(str(ref), self._open_pipe(pod))
                anew.append(ref)
        deadline = monotonic() + _AGAIN
        for ref in anew:
            try:
                self._links[ref].greeted.result(deadline)
            except LinkError:
                continue  # whoever asks hears why
        return {ref: self._links[ref] if pod is not None and not self._links[ref].dead else None for ref, pod in pods.items()}

    def dead(self, ref: Ref) -> str:
        """Return why a pod cannot be asked."""
        link = self._links.get(ref)
        return (link.dead if link is not None else "") or "there is no such pod any more"

    def probe(
        self, pods: Mapping[Ref, KubePod | None], senders: Sequence[Ref], specs: Sequence[dict[str, Any]], seconds: float
    ) -> list[Mapping[str, Any]]:
        """Send every spec from its pod, side by side, and return the answers in the same order; one that is lost says why."""
        places: dict[Ref, list[int]] = {}
        for at, ref in enumerate(senders):
            places.setdefault(ref, []).append(at)
        links = self.of({ref: pods.get(ref) for ref in places})
        asked: dict[Ref, Pending | None] = {}
        for ref, mine in places.items():
            link = links[ref]
            asked[ref] = None if link is None else link.ask("probe", specs=[specs[n] for n in mine])
        deadline = monotonic() + seconds
        answers: list[Mapping[str, Any]] = [{}] * len(specs)
        for ref, mine in places.items():
            try:
                pending = asked[ref]
                if pending is None:
                    raise LinkError(f"exec into {ref}: {self.dead(ref)}")
                came = pending.result(deadline)["observations"]
                if len(came) != len(mine) or any(o["nonce"] != specs[n]["nonce"] for n, o in zip(mine, came, strict=True)):
                    raise LinkError(f"exec into {ref}: the answers are not those of what was sent")
            except LinkError as error:
                came = [unsent(specs[n], str(error)) for n in mine]
            for n, observation in zip(mine, came, strict=True):
                answers[n] = observation
        return answers

    def seen(self, servers: Collection[Ref], pods: Mapping[Ref, KubePod | None]) -> dict[Ref, Sequence[Sighting] | None]:
        """Return all that each server has seen, also of pods that have ended since; None where it cannot be told."""
        asking = {ref: pods.get(ref) for ref in servers if pods.get(ref) is not None and self._logs.get(ref, []) is not None}
        links = self.of(asking)
        pending = {ref: link.ask("seen", since=len(self._logs.get(ref) or ())) for ref, link in links.items() if link is not None}
        deadline = monotonic() + _SEEN
        unheard = set(asking) - set(pending)
        for ref, asked in pending.items():
            try:
                self._note(ref, asked.result(deadline)["sightings"])
            except LinkError:
                unheard.add(ref)
        return {ref: None if ref in unheard else self._logs.get(ref) for ref in servers}

    def _note(self, ref: Ref, entries: Sequence[Sequence[Any]]) -> None:
        self._logs[ref] = witness.written(self._logs.get(ref, []), entries)

    def part(self, ending: Mapping[Ref, KubePod], order: str) -> None:
        """Read the logs of servers whose pods are about to end, give their agents a last order, and end the conversations."""
        self.seen([ref for ref, pod in ending.items() if pod.serves], ending)
        asked = [link.ask(order) for link in self.of(ending).values() if link is not None] if order else []
        deadline = monotonic() + _SEEN
        for pending in asked:
            try:
                pending.result(deadline)
            except LinkError:
                continue  # it ends by being deleted
        self.close(ending)

    def close(self, refs: Iterable[Ref]) -> None:
        """End the conversations with these pods; what they told stays known."""
        for ref in refs:
            link = self._links.pop(ref, None)
            if link is not None:
                link.close()

    def forget(self, refs: Iterable[Ref]) -> None:
        """Drop what these pods told."""
        for ref in refs:
            self._logs.pop(ref, None)
