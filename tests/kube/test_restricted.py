# SPDX-License-Identifier: Apache-2.0
"""A user who may do no more than the ClusterRole that ztconform prints: it suffices, and a right taken away is no denial."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from kube_cases import outcomes, proved
from kube_clusters import Ready, ztconform

from ztconform.kube import access
from ztconform.kube.client import connect
from ztconform.kube.cluster import KubeCluster
from ztconform.stacks.kubernetes import settled

pytestmark = pytest.mark.usefixtures("nothing_left")
ACCOUNT = "ztc-restricted"
USER = f"system:serviceaccount:default:{ACCOUNT}"
EXEC = "ztc-restricted-exec"


@pytest.fixture
def kubeconfig(cilium: Ready, tmp_path: Path) -> Iterator[Path]:
    """Yield the kubeconfig of an account with two roles: to exec into pods, and all else that is needed."""
    wanted = access.needs(cilium.connection())
    parts = {EXEC: [n for n in wanted if n.resource == "pods/exec"], ACCOUNT: [n for n in wanted if n.resource != "pods/exec"]}
    roles = "---\n".join(access.cluster_role(name, part) + "---\n" + access.binding(name, USER) for name, part in parts.items())
    cilium.kubectl("create", "serviceaccount", ACCOUNT)
    cilium.kubectl("apply", "-f", "-", told=roles)
    admin = yaml.safe_load(cilium.kubeconfig.read_text(encoding="utf-8"))
    token = cilium.kubectl("create", "token", ACCOUNT).strip()
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump({**admin, "users": [{"name": admin["users"][0]["name"], "user": {"token": token}}]}))
    yield path
    cilium.kubectl("delete", "-f", "-", "--ignore-not-found", told=roles)
    cilium.kubectl("delete", "serviceaccount", ACCOUNT)


def test_the_role_that_is_printed_suffices_for_a_run(cilium: Ready, kubeconfig: Path) -> None:
    image = cilium.settings.pods.agent_image
    where = [f"--context={cilium.context}", f"--kubeconfig={kubeconfig}", *([f"--agent-image={image}"] if image else [])]
    told = ztconform("doctor", f"--context={cilium.context}", f"--kubeconfig={kubeconfig}")
    assert "all that a run needs is permitted" in told.stdout
    done = ztconform("run", "--requirement=N04", *where)
    assert "1 requirement: 1 PROVED" in done.stdout, done.stdout + done.stderr


def test_without_the_right_to_exec_nothing_is_created_and_the_line_names_it(cilium: Ready, kubeconfig: Path) -> None:
    cilium.kubectl("delete", "clusterrolebinding", EXEC)
    done = ztconform("run", "--requirement=N04", f"--context={cilium.context}", f"--kubeconfig={kubeconfig}")
    assert 3 == done.returncode
    assert "not permitted: pods/exec (create get)" in " ".join((done.stdout + done.stderr).split())
    assert "Traceback" not in done.stdout + done.stderr


def test_an_exec_that_is_refused_half_way_denies_nobody(cilium: Ready, kubeconfig: Path) -> None:
    connection = connect(cilium.context, kubeconfig)
    settings = settled(replace(cilium.settings, run="restricted"))

    with KubeCluster(connection, settings, cilium.stack.profile(connection, settings, cilium.name)) as cluster:

        def refuse() -> None:
            cilium.kubectl("delete", "clusterrolebinding", EXEC)
            for link in list(cluster._links._links.values()):
                link.close("cut off by the test")

        came = proved(cluster, at="hold", fault=refuse)
    assert {"INCONCLUSIVE"} == set(outcomes(came).values())
    assert "exec" in came["stranger denied"].why
