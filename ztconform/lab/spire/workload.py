# SPDX-License-Identifier: Apache-2.0
"""The program of a pod: asks the Workload API, for each line it reads, who it is, and says so in a line of JSON.

It runs by itself, from a path that SPIRE's agent knows it by, and imports nothing of ours. Who starts it is `workloads`.
"""

import json
import sys

import grpc
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from spiffe import WorkloadApiClient
from spiffe.errors import ArgumentError, PySpiffeError

_SECONDS = 2.0  # for one answer; milliseconds are usual


def ask(socket: str) -> dict[str, object]:
    """Return the SVID and the roots that are issued to this process, as PEM, or the gRPC code and words of the refusal."""
    try:
        # A client of its own each time: gRPC waits longer and longer before it calls an agent again that was gone.
        with WorkloadApiClient(socket_path=f"unix:{socket}", default_timeout=_SECONDS) as client:
            context = client.fetch_x509_context()
    except ArgumentError as error:  # no such socket
        return {"refused": "UNAVAILABLE", "detail": str(error)}
    except PySpiffeError as error:
        call = error.__cause__
        if isinstance(call, grpc.Call):
            return {"refused": call.code().name, "detail": call.details() or ""}
        return {"refused": "UNKNOWN", "detail": str(error)}
    svid = context.default_svid
    return {
        "id": str(svid.spiffe_id),
        "chain": "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in svid.cert_chain),
        "key": svid.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        "roots": {
            str(bundle.trust_domain): "".join(sorted(c.public_bytes(Encoding.PEM).decode() for c in bundle.x509_authorities))
            for bundle in context.x509_bundle_set.bundles
        },
    }


def main() -> None:
    """Answer until nobody asks any more."""
    for _ in sys.stdin:
        sys.stdout.write(json.dumps(ask(sys.argv[1])) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
