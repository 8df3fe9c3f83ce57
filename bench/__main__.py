# SPDX-License-Identifier: Apache-2.0
"""Print the table of `make bench`, every figure that the lab must reach, or with `cluster` that of `make bench-cluster`."""

import os
import platform
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import figures, mesh
from ztconform.lab.cluster import LabCluster
from ztconform.model import Step


def main() -> None:
    """Measure the lab, or a cluster, and print one table."""
    if sys.argv[1:] == ["cluster"]:
        measure_cluster()
    else:
        measure_lab()


def measure_lab() -> None:
    """Measure everything in the lab."""
    rows = [figures.ready(6, 0.3), figures.ready(50, 2.0)]
    with LabCluster() as lab:
        lab.deploy(figures.topology(6), "bench")
        rows += [
            figures.load(lab, 5000),
            figures.in_force(lab, "NetworkPolicy", figures.attempt(1, 0, 0.4), figures.DENY, 0.0005, 20),
            figures.timing_out(lab, 3),
            figures.curl_ratio(lab),
        ]
    rows.append(figures.truth_table(5))
    rows += [mesh.ready(4, 6, 0.5), mesh.ready(50, 50, 3.0)]
    with LabCluster() as lab:
        lab.deploy(mesh.meshed(4, 6), "bench")
        lab.perform(Step(apply=(mesh.STRICT,)))
        rows += [
            mesh.load(lab),
            figures.in_force(lab, "AuthorizationPolicy", mesh.by_service(1, 0, timeout=0.4), mesh.NOBODY, 0.002, 50),
            mesh.rotation(lab, 50),
        ]
    rows += [figures.requirements(60), figures.requirements(40, "-n", "2")]
    show(rows)


def measure_cluster() -> None:
    """Measure everything on one kind cluster with Cilium, made of what ZTC_TEST_* variables name."""
    from kube_clusters import provide, settings_of  # noqa: PLC0415 - of the tests, and of no use to the lab

    from bench import cluster  # noqa: PLC0415 - likewise

    with tempfile.TemporaryDirectory() as folder:
        for ready in provide("cilium", settings_of(Path(folder))):
            with ready.start() as started:
                rows = [cluster.ready(started), cluster.bare(ready)]
                started.deploy(cluster.topology(), "bench")
                started.perform(Step(apply=cluster.policies()))
                figures_of_a_round, seconds = cluster.one_round(started)
                rows += [*figures_of_a_round, *cluster.against_kubectl(started, ready.kubeconfig, seconds)]
                started.remove("bench")
                rows.append(cluster.proved(started))
            rows += cluster.requirements(ready)
    show(rows)


def show(rows: list[figures.Figure]) -> None:
    """Print the table."""
    uid = "root" if os.getuid() == 0 else "an ordinary user"
    table = Table(title=f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}, as {uid}")
    for heading in ("figure", "measured", "goal", ""):
        table.add_column(heading)
    for row in rows:
        table.add_row(row.what, row.value, row.goal, {True: "met", False: "MISSED", None: ""}[row.met])
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
