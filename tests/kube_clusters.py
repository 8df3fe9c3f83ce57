# SPDX-License-Identifier: Apache-2.0
"""How the tests of real clusters get one: made of what ZTC_TEST_* variables name; without any, of what ztconform pins."""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic, sleep

from ztconform.kube import kind, machine
from ztconform.kube.client import Connection, connect
from ztconform.kube.cluster import KubeCluster
from ztconform.settings import PodOptions, Settings
from ztconform.stacks import find
from ztconform.stacks.kubernetes import KubernetesStack, settled

ROOT = Path(__file__).resolve().parents[1]


def given(name: str) -> str:
    return os.environ.get(f"ZTC_TEST_{name}", "")


def path(name: str) -> Path | None:
    return Path(given(name)) if given(name) else None


def named(name: str) -> dict[str, Path]:
    return {"cilium": Path(given(name))} if given(name) else {}


def settings_of(folder: Path, **more: object) -> Settings:
    """Return what the environment says, as options would."""
    images = path("IMAGES")
    return replace(
        Settings(
            kind_image=given("NODE_IMAGE"),
            kind_config=path("KIND_CONFIG"),
            kind_bin=given("KIND_BIN") or "kind",
            helm_bin=given("HELM_BIN") or "helm",
            load_images=(images,) if images else (),
            charts=named("CILIUM_CHART"),
            values=named("CILIUM_VALUES"),
            pods=PodOptions(agent_image=given("AGENT_IMAGE")),
            run=secrets.token_hex(3),
            folder=folder,
            keep=bool(given("KEEP")),
            notify=lambda line: print(line, file=sys.stderr, flush=True),
        ),
        **more,
    )


def options_of(settings: Settings) -> list[str]:
    """Return the same as options for `ztconform run --`."""
    flags: Mapping[str, object] = {
        "--ztc-kind-image": settings.kind_image,
        "--ztc-kind-config": settings.kind_config,
        "--ztc-kind-bin": settings.kind_bin,
        "--ztc-helm-bin": settings.helm_bin,
        "--ztc-agent-image": settings.pods.agent_image,
    }
    several = [f"--ztc-load-image={p}" for p in settings.load_images]
    several += [f"--ztc-chart={c}={p}" for c, p in settings.charts.items()]
    several += [f"--ztc-values={c}={p}" for c, p in settings.values.items()]
    return [*(f"{flag}={value}" for flag, value in flags.items() if value), *several]


def there_options(settings: Settings) -> list[str]:
    """Return what of these an existing cluster is given as options: none that is for the making of one."""
    image = settings.pods.agent_image
    return [f"--ztc-agent-image={image}"] if image else []


@dataclass(frozen=True)
class Ready:
    """Hold a cluster that runs, and how a command line names it."""

    name: str
    kubeconfig: Path
    settings: Settings
    stack: KubernetesStack

    @property
    def context(self) -> str:
        return kind.context(self.name)

    def connection(self) -> Connection:
        return connect(self.context, self.kubeconfig)

    def start(self, **more: object) -> KubeCluster:
        """Return a cluster of a run of its own."""
        settings = settled(replace(self.settings, run=secrets.token_hex(3), **more))
        connection = self.connection()
        return KubeCluster(connection, settings, self.stack.profile(connection, settings, self.name))

    def kubectl(self, *arguments: str, told: str = "") -> str:
        """Run kubectl in the control plane's own container, where it always is; it reads `told`."""
        inside = ["docker", "exec", "--interactive", f"{self.name}-control-plane"]
        command = [*inside, "kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120, input=told).stdout

    def leftovers(self, within: float, beside: Collection[str] = ()) -> list[str]:
        """Return what of ours is in the cluster and beside it, once there is nothing or the seconds are over.

        `beside` are containers that were there before, of other runs.
        """
        ours = ["-l", "app.kubernetes.io/managed-by=ztconform", "-o", "name"]
        deadline = monotonic() + within
        while True:
            inside = self.kubectl("get", "namespaces,leases", "--all-namespaces", *ours).split()
            found = inside + sorted(set(containers()) - set(beside))
            if not found or monotonic() > deadline:
                return found
            sleep(1)


def containers() -> list[str]:
    """Return the containers of ours, of whatever run."""
    return docker("ps", "--all", "--filter", "label=ztconform.run", "--format", "{{.Names}}").split()


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True, timeout=120).stdout


def ztconform(*arguments: str, timeout: float = 600, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    command = [sys.executable, "-m", "ztconform.cli", *arguments]
    variables = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, env=variables, cwd=ROOT)


def outcomes(ready: Ready, requirements: Sequence[str], folder: Path, *options: str) -> tuple[dict[str, str], str]:
    """Run requirements as a user does on a cluster that is there; return what each came to, and the end of the output."""
    chosen = [word for name in requirements for word in ("--requirement", name)]
    existing = ["--stack", ready.stack.name, "--context", ready.context, "--report", str(folder)]
    own = there_options(ready.settings)
    run = ztconform("run", *existing, *chosen, "--", *options, *own, timeout=3000, KUBECONFIG=str(ready.kubeconfig))
    told = json.loads((folder / "conformance.json").read_text(encoding="utf-8"))
    found = {one["id"]: one["outcome"] for one in told["requirements"] if one["outcome"] != "NOT_RUN"}
    return found, run.stdout[-4000:]


def provide(name: str, settings: Settings) -> Iterator[Ready]:
    stack = find(name)
    assert isinstance(stack, KubernetesStack)
    stack.preflight(settings)
    stack.provided(settled(settings))
    real = kind.name_of(name, settings.run, keep=settings.keep)
    kubeconfig = settings.folder / f"{real}.kubeconfig"  # type: ignore[operator]  # always given here
    kind.export_kubeconfig(machine.kind(settings.kind_bin), real, kubeconfig)
    yield Ready(real, kubeconfig, settings, stack)
    stack.finish(settings, failed=False)
