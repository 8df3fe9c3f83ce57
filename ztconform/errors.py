# SPDX-License-Identifier: Apache-2.0
"""Every way in which ztconform stops, by who must act; the plugin and the CLI turn them into exit codes.

    Exception
    +-- ZtconformError            could not run                           exit 3
    |   +-- UsageError            the user: a wrong option or case file   exit 2
    |   |   +-- Rejected          the manifest's author                   exit 2
    |   +-- ClusterError          the cluster's or the machine's owner    exit 3
    |   +-- InternalError         us: please report                       exit 3
    +-- AssertionError
        +-- ConformanceFailure    ran, and the cluster is wrong           exit 1

1 beats 3 beats 0; everything proved is 0.
"""

EXIT_PROVED = 0
EXIT_RED = 1
EXIT_USAGE = 2
EXIT_COULD_NOT_RUN = 3


class ZtconformError(Exception):
    """Say that ztconform could not run, and in the message what to do next."""

    exit_code = EXIT_COULD_NOT_RUN


class UsageError(ZtconformError):
    """Say which option, file or field the user has to change."""

    exit_code = EXIT_USAGE


class Rejected(UsageError):
    """Say that a manifest is refused: `where` names the object and field, `reason` why.

    A stack refuses what it cannot enforce; nothing in a manifest is ever ignored.
    """

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where = where
        self.reason = reason


class ClusterError(ZtconformError):
    """Say what the cluster, or this machine, lacks or failed to do."""


class InternalError(ZtconformError):
    """Say that ztconform itself is wrong; the message asks for a report."""


class ConformanceFailure(AssertionError):
    """Say that the cluster was tested and a row did not come out as wanted."""
