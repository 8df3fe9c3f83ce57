# SPDX-License-Identifier: Apache-2.0
"""How the lab's process leaves the host: new user, network, mount and PID namespaces, gone when it is gone.

What is built inside is left to `wiring`; whether this machine allows it at all is asked beforehand by `preflight`.

The process that calls `enter` stays outside and waits; its child goes on as PID 1 of the new PID namespace. Whatever kills
the outer process kills the child (PR_SET_PDEATHSIG), the end of a PID 1 kills every process below it, and the kernel then
frees namespaces, interfaces and rules: nothing is bound to a path, so tearing down needs no code that could fail.
"""

import contextlib
import ctypes
import errno
import os
import select
import signal
import sys
from collections.abc import Iterable
from typing import NoReturn

from ztconform.errors import ClusterError
from ztconform.lab import netns

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
PR_SET_PDEATHSIG = 1
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
CAP_SYS_ADMIN = 21

_NAMESPACES = CLONE_NEWNS | CLONE_NEWPID | netns.CLONE_NEWNET


def enter() -> None:
    """Go on as PID 1 of new namespaces, in a child; the calling process never returns and exits with the child's code.

    Call it before the process starts a thread. Raises ClusterError, naming the cure, where the machine does not allow it.
    """
    if sys.platform != "linux":
        raise ClusterError(f"the lab needs Linux; this is {sys.platform}")
    _unshare()
    alive_read, alive_write = os.pipe()
    # Blocked until sigwait takes them: a signal between fork and a handler's installation would otherwise orphan the child.
    awaited = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # an inherited SIG_IGN would reap the child behind our back
    before = signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    sys.stdout.flush()
    sys.stderr.flush()
    # Listed before the fork, after which the child may mount a /proc in which the outer process is not.
    held = [int(name) for name in os.listdir("/proc/self/fd") if int(name) > 2 and int(name) != alive_write]
    inner = os.fork()
    if inner:
        _attend(inner, held)
    os.close(alive_write)
    _bind_to_outer(alive_read)
    netns.home.cache_clear()
    signal.signal(signal.SIGTERM, _terminate)  # a PID 1 without a handler ignores it
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    _mount_proc()


def _unshare() -> None:
    """Leave the namespaces of the host, with a user namespace wherever one can be had: root inside owns nothing outside."""
    if _holds_sys_admin() and not _user_namespace_works():
        try:
            netns.unshare(_NAMESPACES)
        except OSError as error:
            raise ClusterError(cure(error)) from error
        return
    uid, gid = os.getuid(), os.getgid()
    try:
        netns.unshare(CLONE_NEWUSER | _NAMESPACES)
        _map(uid, gid)
    except OSError as error:
        raise ClusterError(cure(error)) from error


def _map(uid: int, gid: int) -> None:
    """Make the one user who started us root inside; more than one line would take privileges that we do not have."""
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _user_namespace_works() -> bool:
    """Return whether root could go on in a user namespace, tried in a short-lived child because there is no way back.

    There it loses its power over other users' files: under `sudo` in a home of mode 0750 it could not import its own modules.
    """
    uid, gid = os.getuid(), os.getgid()
    needed = [path for path in (sys.executable, __file__, *(path or "." for path in sys.path)) if os.access(path, os.R_OK)]
    child = os.fork()
    if child == 0:
        works = False
        try:
            netns.unshare(CLONE_NEWUSER | _NAMESPACES)
            _map(uid, gid)
            works = all(os.access(path, os.R_OK) for path in needed)
        finally:
            os._exit(0 if works else 1)  # in `finally`, for nothing that happens here may go on as a second lab
    return os.waitpid(child, 0)[1] == 0


def _attend(inner: int, held: Iterable[int]) -> NoReturn:
    """Wait for the child and exit as it did; a signal to us ends it."""
    for fd in held:  # else whoever talks to the child by an inherited socket would see no end of file when the child closes it
        with contextlib.suppress(OSError):  # the listing's own descriptor is closed already
            os.close(fd)
    asked = 0
    while True:
        received = signal.sigwait({signal.SIGTERM, signal.SIGINT, signal.SIGCHLD})
        if received != signal.SIGCHLD:
            asked = received
            os.kill(inner, signal.SIGKILL)
            continue
        pid, status = os.waitpid(inner, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            os._exit(128 + (asked or -code) if code < 0 else code)


def _bind_to_outer(alive: int) -> None:
    """Have the kernel kill us with the outer process, even where that died before we could ask for it."""
    netns.checked("prctl", PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    poll = select.poll()
    poll.register(alive, 0)  # POLLHUP comes unasked, once the outer process has closed the other end by dying
    if poll.poll(0):
        os._exit(128 + signal.SIGKILL)
    os.close(alive)


def _terminate(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)


def _mount_proc() -> None:
    """Show our own PID namespace in /proc, where the machine lets us.

    A container that masks parts of /proc does not; then PIDs below /proc are the container's, and all else works the same.
    """
    try:
        netns.checked("mount", b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None)
        netns.checked("mount", b"proc", b"/proc", b"proc", ctypes.c_ulong(0), None)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EACCES):
            raise ClusterError(f"cannot mount /proc for the lab: {error.strerror}") from error


def _holds_sys_admin(proc: str = "/proc") -> bool:
    return bool(int(_status("CapEff", proc) or "0", 16) >> CAP_SYS_ADMIN & 1)


def cure(error: OSError, proc: str = "/proc") -> str:
    """Return why no namespaces could be had, with every command or option that this machine needs to allow them."""
    if error.errno == errno.EINVAL and int(_status("Threads", proc) or "1") > 1:
        return "the lab's process started a thread before it entered its namespaces; start it as `python -m ztconform.lab`"
    missing = [name for name in ("user", "net", "pid", "mnt") if not os.path.exists(f"{proc}/self/ns/{name}")]
    if missing:
        options = "CONFIG_USER_NS, CONFIG_NET_NS and CONFIG_PID_NS"
        return f"this kernel is built without {', '.join(missing)} namespaces: use one with {options}"
    found = [f"`sysctl -w {key}={good}` (it is {bad})" for key, bad, good in _BLOCKERS if _sysctl(key, proc) == bad]
    if found:
        return f"this machine refuses namespaces ({error.strerror}): as root run {' and '.join(found)}, or run ztconform as root"
    if _status("Seccomp", proc) == "2":
        return (
            f"the seccomp profile of this container or service refuses namespaces ({error.strerror}): start the container with "
            "--security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined, "
            "or as root with --privileged"
        )
    if error.errno in (errno.ENOSPC, errno.EUSERS):
        return "this user has no namespaces left: end what holds them, or as root raise user.max_user_namespaces (sysctl -w)"
    return f"this machine refuses user namespaces ({error.strerror}): run ztconform as root, or in a Linux VM"


_BLOCKERS = (
    ("user.max_user_namespaces", "0", "15000"),
    ("user.max_net_namespaces", "0", "15000"),
    ("user.max_pid_namespaces", "0", "15000"),
    ("user.max_mnt_namespaces", "0", "15000"),
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
)


def _sysctl(key: str, proc: str) -> str:
    return _read(f"{proc}/sys/{key.replace('.', '/')}").strip()  # not every kernel has each of them


def _status(key: str, proc: str) -> str:
    lines = _read(f"{proc}/self/status").splitlines()
    return next((line.split()[1] for line in lines if line.startswith(key + ":")), "")


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""
