# SPDX-License-Identifier: Apache-2.0
"""Print the table of `make bench`: every figure that the lab must reach, and how it compares with curl."""

import os
import platform

from rich.console import Console
from rich.table import Table

from bench import figures, mesh
from ztconform.lab.cluster import LabCluster
from ztconform.model import Step


def main() -> None:
    """Measure everything and print one table."""
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
    uid = "root" if os.getuid() == 0 else "an ordinary user"
    table = Table(title=f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}, as {uid}")
    for heading in ("figure", "measured", "goal", ""):
        table.add_column(heading)
    for row in rows:
        table.add_row(row.what, row.value, row.goal, {True: "met", False: "MISSED", None: ""}[row.met])
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
