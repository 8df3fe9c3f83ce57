# SPDX-License-Identifier: Apache-2.0
"""The process in which pytest-kind makes a cluster: `python -m ztconform.kube.kindcall NAME KUBECONFIG KIND IMAGE CONFIG`.

A process of its own, for KindCluster writes below its working directory and lets kind write to our terminal. Everything else
about a cluster is left to `kind`.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pytest_kind import KindCluster


def main(args: Sequence[str]) -> int:
    """Create the cluster and return kind's exit code."""
    name, kubeconfig, binary, image, config = args
    # Always a kind of the user's: KindCluster would download v0.17, unchecked. No kubectl: nothing here calls one.
    cluster = KindCluster(name, kubeconfig=Path(kubeconfig), image=image, kind_path=Path(binary))
    try:
        cluster.create(config)
    except subprocess.CalledProcessError as error:
        return int(error.returncode) or 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
