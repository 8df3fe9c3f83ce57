# SPDX-License-Identifier: Apache-2.0
"""What one observation means, given the controls of the same round; pure, and INCONCLUSIVE unless something is proved.

Whether a verdict is the wanted one, in every phase, is for `proof` to say.
"""

import re
from collections.abc import Mapping, Sequence
from typing import assert_never

from ztconform.evidence import Cause, Observation, Round, Signature, Verdict, Vital
from ztconform.model import Attempt, Ref, Row


def judge(
    attempt: Attempt,
    observation: Observation,
    round_: Round,
    *,
    signatures: Sequence[Signature],
    cause: Cause | None,
    baseline: Mapping[Ref, Vital],
) -> Verdict:
    """Turn one observation into a verdict.

    `baseline` holds the vitals of the servers when their controls passed: a server that has changed since proves nothing.
    """
    match observation.signal:
        case "answered":
            if not observation.backend and any(_looks_like(s, attempt, observation) for s in signatures):
                return _refused_by_someone(attempt, observation, round_, signatures, cause, baseline)
            return _answered(attempt, observation, baseline)
        case "timeout" | "silence" | "icmp" | "closed" | "tls-alert" | "no-identity":
            return _refused_by_someone(attempt, observation, round_, signatures, cause, baseline)
        case "refused":
            return _inconclusive("connection refused: nobody listens there, and that is no policy's doing")
        case "dns":
            return _inconclusive(f"the name did not resolve ({observation.detail or 'no answer'})")
        case "not-run":
            return _inconclusive(f"the probe could not be sent ({observation.detail or 'no reason given'})")
        case _:
            assert_never(observation.signal)


def meets(row: Row, verdict: Verdict) -> bool:
    """Return whether a verdict is exactly what the row wants."""
    match row.want:
        case "allowed":
            return verdict.kind == "ALLOWED"
        case "denied":
            return verdict.kind == "DENIED" and verdict.layer in row.by
        case "inconclusive":
            return verdict.kind == "INCONCLUSIVE"
        case _:
            assert_never(row.want)


def contradicts(row: Row, verdict: Verdict) -> bool:
    """Return whether a verdict is evidence against the row, and not merely none for it."""
    return verdict.kind != "INCONCLUSIVE" and not meets(row, verdict)


def _inconclusive(why: str) -> Verdict:
    return Verdict(kind="INCONCLUSIVE", why=why)


def _answered(attempt: Attempt, observation: Observation, baseline: Mapping[Ref, Vital]) -> Verdict:
    if attempt.probe.kind == "dns":
        # A cluster's own DNS server carries no mark of ours; the address in its answer is the evidence.
        if observation.detail == "NOERROR" and observation.body:
            return Verdict(kind="ALLOWED", why=f"resolved to {observation.body}")
        return _inconclusive(f"the resolver answered {observation.detail or 'nothing'} without an address")
    if not observation.backend:
        return _inconclusive(f"answered, but not by an agent of ours ({_status(observation)})")
    backend = next((t for t in attempt.targets if str(t) == observation.backend), None)
    if backend is None:
        return _inconclusive(f"answered by {observation.backend}, which is not the target")
    known = baseline.get(backend)
    if known is not None and known.boot != observation.boot:
        return _inconclusive(f"{observation.backend} has restarted since its control")
    if observation.status is not None and not 200 <= observation.status < 300:
        return _inconclusive(f"the application itself answered {observation.status}")
    return Verdict(kind="ALLOWED", why=f"answered by {observation.backend} ({_status(observation)})")


def _status(observation: Observation) -> str:
    return f"HTTP {observation.status}" if observation.status is not None else observation.detail or "data"


def _refused_by_someone(
    attempt: Attempt,
    observation: Observation,
    round_: Round,
    signatures: Sequence[Signature],
    cause: Cause | None,
    baseline: Mapping[Ref, Vital],
) -> Verdict:
    # Two layers may refuse in the same way; then the cause tells which of them it was.
    alike = [s for s in signatures if _looks_like(s, attempt, observation)]
    signature = next((s for s in alike if cause is not None and s.layer == cause.layer), next(iter(alike), None))
    if signature is None:
        seen = " ".join(x for x in (observation.signal, observation.detail, f"at {observation.stage}") if x)
        return _inconclusive(f"{seen} is not how a denial looks on this stack")
    doubt = _silent_of_itself(attempt, round_, baseline)
    if doubt:
        return _inconclusive(doubt)
    if cause is not None and cause.layer != signature.layer:
        return _inconclusive(f"looks like {signature.name}, but {cause.source} names layer {cause.layer}")
    if signature.caused and cause is None:
        return _inconclusive(f"looks like {signature.name}, but nothing logged that it dropped this probe")
    by = f" by {cause}" if cause is not None else ""
    return Verdict(kind="DENIED", layer=signature.layer, signature=signature.name, why=f"{signature.name}{by}")


def _looks_like(signature: Signature, attempt: Attempt, observation: Observation) -> bool:
    return (
        attempt.probe.kind in signature.kinds
        and observation.signal == signature.signal
        and observation.stage in signature.stages
        and (not signature.detail or re.fullmatch(signature.detail, observation.detail) is not None)
        and signature.status in (None, observation.status)
        and (not signature.body or re.search(signature.body, observation.body) is not None)
    )


def _silent_of_itself(attempt: Attempt, round_: Round, baseline: Mapping[Ref, Vital]) -> str:
    """Return why the silence may be the target's or the network's own, or "" if this round shows that it is not."""
    if round_.doubt:
        return round_.doubt
    if not attempt.targets:
        return "no pod stands behind the target"
    transport = attempt.probe.transport
    vitals = {v.server: v for v in round_.vitals if (v.port, v.transport) == (attempt.probe.port, transport)}
    for target in attempt.targets:
        vital, known = vitals.get(target), baseline.get(target)
        if vital is None:
            return f"{target} was not asked whether it serves {transport} {attempt.probe.port}"
        if not vital.answers_itself:
            return f"{target} does not answer itself on {transport} {attempt.probe.port} ({vital.detail or 'silence'})"
        if known is None:
            return f"{target} passed no control"
        if vital.boot != known.boot:
            return f"{target} has restarted since its control"
        if (vital.ready, vital.in_endpoints) != (known.ready, known.in_endpoints):
            return f"the readiness of {target} has changed since its control"
    bystanders = [b for b in round_.bystanders if b.transport == transport]
    if not bystanders:
        return f"no bystander was asked by {transport}"
    for bystander in bystanders:
        if not bystander.through:
            said = "could not be asked" if bystander.through is None else "did not get through either"
            return f"a bystander that no policy selects {said} ({bystander.detail or bystander.nodes})"
    return ""
