# SPDX-License-Identifier: Apache-2.0
"""The lab's child process: leaves the host, becomes two processes, and serves one channel in each until it closes."""

import os
import socket
import sys

from ztconform.errors import ClusterError
from ztconform.lab import sandbox


def main() -> int:
    """Run until our parent closes its ends; prints one line to stderr if the machine does not let us."""
    prober_fd, servers_fd, nodes = map(int, sys.argv[1:])
    try:
        sandbox.enter()
        # What listens is a process of its own, so that it and what probes have a core each.
        ours, theirs = socket.socketpair()
        if os.fork() == 0:
            os.close(prober_fd)
            ours.close()
            from ztconform.lab import serving  # noqa: PLC0415 - only this process needs it

            serving.run(socket.socket(fileno=servers_fd), theirs)
        else:
            os.close(servers_fd)
            theirs.close()
            from ztconform.lab import probing  # noqa: PLC0415 - only this process needs it

            probing.run(socket.socket(fileno=prober_fd), ours, nodes)
    except ClusterError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
