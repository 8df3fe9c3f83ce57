# SPDX-License-Identifier: Apache-2.0
"""Probes that show the SVID which their pod is issued at the moment of sending; where none is issued, that is what they met.

How a probe goes from there is the agent's; what a refusal proves, the judge's.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ztconform.agent.prober import Prober, unsent
from ztconform.errors import ClusterError
from ztconform.lab.spire.workloads import Answer

if TYPE_CHECKING:
    from ztconform.agent.attempt import Done
    from ztconform.agent.spec import Spec

Present = Callable[[str], Awaitable[Answer]]  # nonce -> what the Workload API tells the pod
KEY = "svid"  # of a spec: the device of the pod whose SVID is shown


class Presenter:
    """Fetch, then send by a prober of the same pod.

    A probe counts as sent when its pod asked for the SVID: one that was issued an SVID before another was refused is older than
    that one, however long it took to get on its way.
    """

    def __init__(self, prober: Prober, present: Present) -> None:
        self._prober = prober
        self._present = present
        self._under_way: set[asyncio.Task[None]] = set()

    def send(self, spec: "Spec", nonce: str, done: "Done") -> None:
        """Send a spec that was read before, under a nonce of its own, once its pod has an SVID; never raises."""
        task = asyncio.ensure_future(self._send(spec, nonce, done))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _send(self, spec: "Spec", nonce: str, done: "Done") -> None:
        met, answer = await self.fetch({"attempt": spec.attempt, "nonce": nonce})
        if answer is None or spec.tls is None:
            done(met)
            return
        shown = spec.tls._replace(chain=answer.told["chain"], key=answer.told["key"])
        self._prober.send(spec._replace(tls=shown), nonce, lambda met: done(_since(answer, met)))

    async def fetch(self, fields: Mapping[str, Any]) -> tuple[Any, Answer | None]:
        """Return None and what the pod was issued, or the observation of what it met instead, and None."""
        try:
            answer = await self._present(fields["nonce"])
        except ClusterError as error:
            return unsent(fields, str(error)), None
        if not answer.refusal:
            return None, answer
        refused = {"signal": "no-identity", "stage": "identity", "detail": answer.refusal}
        return _since(answer, {**unsent(fields, ""), **refused}), None


async def send_all(
    prober: Prober, specs: Sequence[Mapping[str, Any]], presenter: Callable[[str], Presenter]
) -> list[Mapping[str, Any]]:
    """Send a pod's specs of one round, and return their observations in the same order.

    What shows the pod's own SVID waits for that, and the others with it; `presenter` is asked by the device in the spec.
    """

    async def fetch(spec: Mapping[str, Any]) -> tuple[Any, Answer | None]:
        return await presenter(spec[KEY]).fetch(spec) if KEY in spec else (None, None)

    fetched = await asyncio.gather(*map(fetch, specs))
    ready = [_with(spec, answer) for spec, (met, answer) in zip(specs, fetched, strict=True) if met is None]
    sent = iter(await prober.probe_all(ready))
    return [_since(answer, next(sent)) if met is None else met for met, answer in fetched]


def _with(spec: Mapping[str, Any], answer: Answer | None) -> Mapping[str, Any]:
    if answer is None:
        return spec
    shown = {**spec["tls"], "chain": answer.told["chain"], "key": answer.told["key"]}
    return {**{name: value for name, value in spec.items() if name != KEY}, "tls": shown}


def _since(answer: Answer | None, met: Any) -> Any:
    return met if answer is None else {**met, "sent": answer.asked}
