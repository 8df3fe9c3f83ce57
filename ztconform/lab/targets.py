# SPDX-License-Identifier: Apache-2.0
"""To which address and port an attempt is really sent, as the agent reads it; sending is the agent's."""

import json
import shlex
import sys
from collections.abc import Mapping
from typing import Any

from ztconform.controls import request_of
from ztconform.errors import InternalError, UsageError
from ztconform.lab.inventory import LabPod
from ztconform.lab.mesh.capture import MARK
from ztconform.lab.mesh.control import MeshControl
from ztconform.lab.rounds import DNS
from ztconform.lab.servicenat import Vip
from ztconform.lab.services import Service, target_number
from ztconform.lab.state import State
from ztconform.lab.zone import CLUSTER_DOMAIN, OUTSIDE_DOMAIN
from ztconform.model import OUTSIDE, Attempt, Probe, Ref
from ztconform.proof.pins import Pins, search
from ztconform.proof.plan import service_of
from ztconform.timeouts import LAB


class Aim:
    """Turn attempts into the agent's terms."""

    def __init__(self, state: State, vips: Mapping[Ref, Vip], pins: Pins, mesh: MeshControl) -> None:
        self._mesh = mesh
        self._state = state
        self._vips = vips
        self._pins = pins

    def spec(self, attempt: Attempt) -> dict[str, Any]:
        """Return what the agent sends for an attempt, but for its nonce."""
        probe = attempt.probe
        source = self._state.pods[probe.source]
        spec: dict[str, Any] = {
            "pod": str(source.ref),
            **request_of(attempt, LAB),
            "bind": bind(source, probe.family),
            **self._address(probe),
        }
        if probe.past_proxy and source.meshed:
            spec["mark"] = MARK
        if probe.cert is not None or probe.kind == "tls":
            spec["tls"] = self._mesh.client_tls(self._state, probe, source)
        if self._mesh.fetches(probe):
            spec["svid"] = source.device
        if "name" in spec or probe.kind == "dns":
            spec["search"] = search(source.ref.namespace, CLUSTER_DOMAIN)
            spec["resolver"] = [self._vip(DNS.workload, 4), 53]
        return spec

    def _address(self, probe: Probe) -> dict[str, Any]:
        if probe.address in ("node", "other-node"):
            raise UsageError(f"{probe.target}: the lab has no node ports")
        if probe.target.namespace == OUTSIDE:
            pod = self._state.pods[probe.target]
            if probe.address == "name":
                return {"name": f"{probe.target.name}.{OUTSIDE_DOMAIN}.", "port": probe.port, "family": probe.family}
            return {"address": _of(pod, probe.family), "port": probe.port}
        if probe.address == "pod":
            return {"address": _of(self._state.pods[probe.target], probe.family), "port": probe.port}
        service = self._state.services[service_of(probe)]
        port = self._number(service, probe)
        if not service.headless and probe.address == "service":
            return {"address": self._vip(service.ref, probe.family), "port": port}
        pinned = self._pins.of(probe)
        if service.headless and probe.address != "name" and pinned is not None:
            return {"address": pinned, "port": port}
        return {"name": f"{service.ref.name}.{service.ref.namespace}", "port": port, "family": probe.family}

    def _number(self, service: Service, probe: Probe) -> int:
        """Return the number by which a Service calls the workload's port."""
        if service.headless:
            return probe.port
        pods = [p for p in self._state.pods.values() if p.workload == probe.target]
        for port in service.ports:
            if port.protocol == probe.transport and any(target_number(port, p) == probe.port for p in pods):
                return port.number
        raise InternalError(f"Service {service.ref} has no port that leads to {probe.target}:{probe.port}; please report")

    def _vip(self, service: Ref, family: int) -> str:
        return self._vips[service].v6 if family == 6 else self._vips[service].v4


def bind(source: LabPod, family: int) -> str | None:
    """Return the address that a probe must leave from: outsiders share one host, and pods have one address each."""
    return _of(source, family) if source.node is None else None


def command(pid: int, fd: int, spec: Mapping[str, Any]) -> str:
    """Return the shell command that sends a spec from the network namespace that a process holds."""
    asked = {k: v for k, v in spec.items() if k != "pod" and v not in (None, [])}
    inner = [sys.executable, "-m", "ztconform.agent", "probe", json.dumps({"attempt": "repeat", **asked})]
    enter = ["nsenter", f"--user=/proc/{pid}/ns/user", "--preserve-credentials", f"--net=/proc/{pid}/fd/{fd}"]
    return f"{shlex.join([*enter, *inner])}  # while the lab is up: --pdb keeps it"


def _of(pod: LabPod, family: int) -> str:
    return pod.v6 if family == 6 else pod.v4
