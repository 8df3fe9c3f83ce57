# SPDX-License-Identifier: Apache-2.0
"""A file system in memory that only the lab's own processes see, with paths of pods' namespaces for Envoy, and of programs.

What is written there is left to `xdsfiles` and `envoy`. It goes with the lab's mount namespace, whatever ends the lab.
"""

import ctypes
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from ztconform.errors import ClusterError
from ztconform.lab import netns

MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 0x1000, 0x4000, 1 << 18
MNT_DETACH = 2
_PLACES = ("/run", "/mnt", "/srv", "/media", "/opt", "/home")  # on any Linux; what is below is hidden from the lab


class Scratch:
    """Mount the file system, within the sandbox; `sandbox.enter` comes first, or the host would get it."""

    def __init__(self, needed: Iterable[str] = ()) -> None:
        """Choose a place that hides none of the paths that are needed, nor Python and ourselves.

        Raises ClusterError where nothing may be mounted.
        """
        self.path = _place([*needed, sys.executable, sys.prefix, sys.base_prefix, __file__, os.getcwd(), *sys.path])
        try:
            netns.checked("mount", b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None)
            flags = ctypes.c_ulong(MS_NOSUID | MS_NODEV | MS_NOEXEC)
            netns.checked("mount", b"ztconform", os.fsencode(self.path), b"tmpfs", flags, b"mode=0700")
        except OSError as error:
            raise ClusterError(
                f"cannot mount a tmpfs on {self.path} for the lab's mesh ({error.strerror}): in a container start it with "
                "--security-opt apparmor=unconfined --security-opt seccomp=unconfined, or with --privileged"
            ) from error
        self._namespaces = self.path / "netns"
        self._programs = self.path / "programs"
        for directory in (self._namespaces, self._programs):
            directory.mkdir()
        self._bound = 0

    def bind(self, fd: int) -> str:
        """Return a path of a network namespace, never used before: Envoy keeps sockets whose path has not changed."""
        self._bound += 1
        path = self._namespaces / str(self._bound)
        path.touch()
        try:
            netns.checked("mount", f"/proc/self/fd/{fd}".encode(), os.fsencode(path), None, ctypes.c_ulong(MS_BIND), None)
        except OSError as error:
            raise ClusterError(f"cannot give a pod's network namespace a path: {error.strerror}") from error
        return str(path)

    def run_as(self, program: str, name: str) -> str:
        """Return a path by which a program can be started under another name, which /proc then gives it."""
        path = self._programs / name
        path.touch()
        try:
            netns.checked("mount", os.fsencode(program), os.fsencode(path), None, ctypes.c_ulong(MS_BIND), None)
        except OSError as error:
            raise ClusterError(f"cannot give {program} a path of its own in the lab: {error.strerror}") from error
        return str(path)

    def unbind(self, path: str) -> None:
        """Remove the path of a namespace or program, which then lives as long as somebody uses it."""
        netns.checked("umount2", path.encode(), MNT_DETACH)
        Path(path).unlink()


def _place(needed: Iterable[str]) -> Path:
    kept = [Path(path).resolve() for path in needed]
    for place in map(Path, _PLACES):
        if place.is_dir() and not any(path.is_relative_to(place.resolve()) for path in kept):
            return place
    raise ClusterError(
        f"the lab's mesh needs one of the directories {', '.join(_PLACES)} for itself; Python or Envoy are in each"
    )
