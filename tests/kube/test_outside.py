# SPDX-License-Identifier: Apache-2.0
"""Hosts outside on a Docker network of the test's own, without a cluster: what is started is ready, or says why it is not."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from kube_clusters import docker, settings_of

from ztconform.errors import ClusterError
from ztconform.kube import objects
from ztconform.kube.labels import Labels
from ztconform.kube.links import Links
from ztconform.kube.nodes import Nodes
from ztconform.kube.outside import DockerOutside
from ztconform.model import OUTSIDE, Ref, Workload
from ztconform.stacks.kubernetes import settled

HOST = Workload(ref=Ref(OUTSIDE, "world"))
NOBODY = Nodes(used=(), left_out={}, addresses={}, pod_networks={})
SLOW = "sleep 4"
BROKEN = "echo 'error: this Python is broken' >&2; exit 1"
LATER = f"sleep 1; {BROKEN}"


@pytest.fixture
def network() -> Iterator[str]:
    """Yield a network of the test's own, and demand that no container is left on it."""
    name = f"ztc-test-{secrets.token_hex(3)}"
    docker("network", "create", name)
    try:
        yield name
        assert "" == docker("ps", "--all", "--quiet", "--filter", f"network={name}")
    finally:
        docker("network", "rm", name)


@pytest.fixture
def outside(network: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[DockerOutside]:
    """Yield hosts outside of the agent's image, whose Python does before it serves what the parameter says."""
    settings = settled(settings_of(tmp_path))
    agent = settings.pods.agent_image
    python = docker("run", "--rm", "--entrypoint", "python3", agent, "-c", "import sys; print(sys.executable)").strip()
    folder = tmp_path / "before"
    folder.mkdir()
    wrapper = folder / "python3"
    wrapper.write_text(f'#!/bin/sh\ncase "$*" in *" serve "*) {request.param} ;; esac\nexec {python} "$@"\n')
    wrapper.chmod(0o755)
    container = docker("create", agent, "true").strip()
    image = f"ztc-test:{secrets.token_hex(3)}"
    try:
        docker("cp", str(folder), f"{container}:/")
        docker("commit", "--change", "ENV PATH=/before:/usr/local/bin:/usr/bin:/bin", container, image)
        yield DockerOutside(NOBODY, Labels("ztconform.test", secrets.token_hex(3)), image, settings.kind_image, network)
    finally:
        docker("rm", "--force", "--volumes", container)
        docker("rmi", "--force", image)


@pytest.mark.parametrize("outside", [SLOW], ids=["slow"], indirect=True)
def test_an_agent_that_starts_late_is_waited_for(outside: DockerOutside) -> None:
    (pod,) = outside.start([HOST])
    try:
        command = objects.orders_command(str(HOST.ref), HOST)
        links = Links(lambda pod: lambda on_data, on_end: outside.pipe(pod, command, on_data, on_end))
        links.open([pod])
        assert {pod.ref} == {ref for ref, link in links.of({pod.ref: pod}).items() if link is not None}
        links.close([pod.ref])
    finally:
        outside.stop([pod])


@pytest.mark.parametrize("outside", [BROKEN, LATER], ids=["at once", "later"], indirect=True)
def test_an_agent_that_does_not_start_says_why(outside: DockerOutside) -> None:
    with pytest.raises(ClusterError, match=r"the outsider ztc-.*-world has ended: error: this Python is broken"):
        outside.start([HOST])
