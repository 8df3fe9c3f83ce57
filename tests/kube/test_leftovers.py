# SPDX-License-Identifier: Apache-2.0
"""What a run leaves in a real cluster when it is interrupted or killed: nothing, or what `ztconform sweep` finds."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from kube_clusters import ROOT, Ready, containers, ztconform


def started(cluster: Ready, *options: str) -> subprocess.Popen[str]:
    own = cluster.settings.pods.agent_image
    command = [sys.executable, "-m", "ztconform.cli", "run", "--requirement=N13", *options]
    command += [f"--context={cluster.context}", f"--kubeconfig={cluster.kubeconfig}", *([f"--agent-image={own}"] if own else [])]
    command += ["--", "--ztc-outsider=docker:kind"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, start_new_session=True
    )


def until(seen: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300  # a machine that is busy has needed more than 120 s to come this far
    while not seen():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def has(cluster: Ready, kind: str, name: str) -> Callable[[], bool]:
    return lambda: name in cluster.kubectl("get", kind, "--all-namespaces", "-o", "name")


# What is there when the run has come so far: the bystanders, the canary's pods, the case, its policy.
PHASES = {
    "bystanders": ("namespaces", "ztc-bystanders-"),
    "canary": ("pods", "permitted"),
    "case": ("pods", "payment-0"),
    "policy": ("networkpolicies", "payment-from-listed-hosts"),
}


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(("phase", "number"), [*((phase, signal.SIGINT) for phase in PHASES), ("policy", signal.SIGTERM)])
def test_an_interrupted_run_leaves_nothing(cilium: Ready, phase: str, number: signal.Signals) -> None:
    process = started(cilium)
    until(has(cilium, *PHASES[phase]), process)
    os.killpg(process.pid, number)
    said, _ = process.communicate(timeout=180)
    assert 0 != process.returncode, said
    assert "PROVED" not in said or "N13 PROVED" not in said


@pytest.mark.usefixtures("nothing_left")
def test_what_a_killed_run_leaves_is_swept_once_its_lease_is_stale_and_nothing_else(cilium: Ready) -> None:
    cilium.kubectl("create", "namespace", "somebody-elses")
    before = containers()
    try:
        process = started(cilium)
        until(has(cilium, *PHASES["policy"]), process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)
        where = [f"--context={cilium.context}", f"--kubeconfig={cilium.kubeconfig}"]
        assert "namespace" not in ztconform("sweep", *where, "--dry-run").stdout, "its Lease is not stale yet"
        time.sleep(65)
        listed = ztconform("sweep", *where, "--dry-run")
        assert "shop-" in listed.stdout and "somebody-elses" not in listed.stdout
        assert [] != cilium.leftovers(within=0, beside=before), "a dry run removed something"
        done = ztconform("sweep", *where)
        assert 0 == done.returncode, done.stdout + done.stderr
        assert "somebody-elses" in cilium.kubectl("get", "namespaces", "-o", "name")
    finally:
        cilium.kubectl("delete", "namespace", "somebody-elses")
