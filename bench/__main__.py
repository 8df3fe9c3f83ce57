# SPDX-License-Identifier: Apache-2.0
"""Print the table of `make bench`: every figure that the lab must reach, and how it compares with curl."""

import os
import platform

from rich.console import Console
from rich.table import Table

from bench import figures
from ztconform.lab.cluster import LabCluster


def main() -> None:
    """Measure everything and print one table."""
    rows = [figures.ready(6, 0.3), figures.ready(50, 2.0)]
    with LabCluster() as lab:
        lab.deploy(figures.topology(6), "bench")
        rows += [
            figures.load(lab, 5000),
            figures.in_force(lab, 20),
            figures.timing_out(lab, 3),
            figures.curl_ratio(lab),
        ]
    rows += [figures.truth_table(5), figures.requirements(20)]
    uid = "root" if os.getuid() == 0 else "an ordinary user"
    table = Table(title=f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}, as {uid}")
    for heading in ("figure", "measured", "goal", ""):
        table.add_column(heading)
    for row in rows:
        table.add_row(row.what, row.value, row.goal, {True: "met", False: "MISSED", None: ""}[row.met])
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
