# SPDX-License-Identifier: Apache-2.0
"""How the process gets network namespaces, and sockets inside them, each held by a file descriptor and never by a path.

What is built inside a namespace is left to `wiring`; leaving the host's namespaces to `sandbox`.
"""

import contextlib
import ctypes
import errno
import functools
import os
import socket
import sys
from collections.abc import Iterator

from ztconform.errors import ClusterError

CLONE_NEWNET = 0x40000000


@functools.cache
def libc() -> ctypes.CDLL:
    """Return the C library, loaded at the first call: importing this module loads nothing."""
    return ctypes.CDLL(None, use_errno=True)


def checked(name: str, *arguments: object) -> None:
    """Call a C library function that returns 0, and raise OSError when it does not."""
    if getattr(libc(), name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


if sys.version_info >= (3, 12):
    unshare = os.unshare
    _setns = os.setns
else:

    def unshare(flags: int) -> None:
        """Move the calling thread into new namespaces."""
        checked("unshare", flags)

    def _setns(fd: int, nstype: int) -> None:
        checked("setns", fd, nstype)


def own() -> int:
    """Return a new file descriptor of the calling thread's network namespace."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


@functools.cache
def home() -> int:
    """Return the namespace that every thread of this process returns to: where the first caller was.

    `sandbox.enter` clears the cache, because a child forked into other namespaces must never return to the old one.
    """
    return own()


def create() -> int:
    """Return a file descriptor of a new network namespace, which lives until that and every socket in it are closed."""
    back = home()
    unshare(CLONE_NEWNET)
    try:
        return own()
    finally:
        _setns(back, CLONE_NEWNET)


@contextlib.contextmanager
def inside(fd: int) -> Iterator[None]:
    """Let the calling thread work inside a namespace; never await or yield in the block, for the thread is elsewhere."""
    back = home()
    _setns(fd, CLONE_NEWNET)
    try:
        yield
    finally:
        _setns(back, CLONE_NEWNET)


def open_socket(fd: int, family: int, type: int, proto: int = 0) -> socket.socket:
    """Return a socket that belongs to a namespace for ever; about 10 us, which `inside` would double."""
    back = home()
    _setns(fd, CLONE_NEWNET)
    try:
        return socket.socket(family, type, proto)
    finally:
        _setns(back, CLONE_NEWNET)


def sysctl(fd: int, key: str, value: object) -> None:
    """Set a sysctl ("net.ipv4.ip_forward") of a namespace.

    Raises ClusterError where the kernel has no such key or /proc/sys may not be written.
    """
    path = "/proc/sys/" + key.replace(".", "/")
    try:
        with inside(fd):
            target = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(target, str(value).encode())
            finally:
                os.close(target)
    except OSError as error:
        raise ClusterError(f"cannot set sysctl {key} to {value}: {_why(error)}") from error


def _why(error: OSError) -> str:
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return (
            f"{error.strerror}. In a container /proc/sys is read-only: start it with --security-opt systempaths=unconfined "
            "--security-opt apparmor=unconfined --security-opt seccomp=unconfined, or with --privileged"
        )
    if error.errno == errno.ENOENT:
        return "this kernel does not have it; use one with IPv4, IPv6 and nf_conntrack"
    return str(error.strerror)
