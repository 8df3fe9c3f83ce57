# SPDX-License-Identifier: Apache-2.0
"""HTTP to a port inside a pod, by the API server's port forwarding: no policy is in its way, and no Service need exist.

What is asked and answered is left to the caller.
"""

import http.client
from contextlib import closing
from typing import Any

from kubernetes import client
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import portforward
from websocket import WebSocketException

from ztconform.errors import ClusterError
from ztconform.kube.client import Connection, first_line, reason

_OK = 200


def get(connection: Connection, pod: tuple[str, str], port: int, path: str, seconds: float) -> bytes:
    """Return what a pod, given by its namespace and name, answers to a GET on one of its ports.

    Raises ClusterError where it cannot be asked, has not answered within so many seconds, or answers with another status
    than 200.
    """
    what = f"GET {path} on port {port} of pod {'/'.join(pod)}"
    try:
        # It swaps a method of the API client while it connects, so that every call needs one of its own.
        with connection.api() as api:
            forward = portforward(client.CoreV1Api(api).connect_get_namespaced_pod_portforward, pod[1], pod[0], ports=str(port))
            with closing(forward):
                return _asked(forward.socket(port), path, seconds, what)
    except ApiException as error:
        raise ClusterError(f"{what}: {reason(error)}") from None
    except (WebSocketException, OSError, http.client.HTTPException, ValueError) as error:
        raise ClusterError(f"{what}: {first_line(str(error)) or type(error).__name__}") from None


def _asked(sock: Any, path: str, seconds: float, what: str) -> bytes:
    sock.settimeout(seconds)
    asking = http.client.HTTPConnection("localhost", timeout=seconds)
    asking.sock = sock
    asking.request("GET", path, headers={"Accept": "application/json", "Connection": "close"})
    answer = asking.getresponse()
    body = answer.read()
    if answer.status != _OK:
        raise ClusterError(f"{what}: answered with {answer.status}: {first_line(body.decode('utf-8', 'replace'))}")
    return body
