# SPDX-License-Identifier: Apache-2.0
"""Which SVID a probe shows that its pod's proxy keeps in files: the one that is there now, or the first that was, once expired.

No private key leaves the pod for it. The certificates are the mesh's own: an expired one is of the true authority, and only late.
"""

from __future__ import annotations

import os
import ssl
from datetime import datetime, timezone
from functools import lru_cache

from .der import elements, inside

CHAIN, KEY = "cert-chain.pem", "key.pem"  # as Istio's agent names them, pkg/istio-agent (OUTPUT_CERTS)
_END = "-----END CERTIFICATE-----"
_SEQUENCE, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0x17, 0x18
_VALIDITY = 2  # among the sequences of a certificate: after its algorithm and its issuer (RFC 5280 4.1)


def held(folder: str) -> tuple[str, str]:
    """Return the certificates and the key that lie in a folder now; raises OSError."""
    return _text(folder, CHAIN), _text(folder, KEY)


def outlived(folder: str) -> tuple[str, str]:
    """Return the first that lay there when this was asked; raises OSError, and ValueError while its time is not over."""
    chain, key = _first(folder)
    left = (expiry(chain) - datetime.now(timezone.utc)).total_seconds()
    if left >= 0:
        raise ValueError(f"the certificate that is to be shown expired expires in {left:.0f} s")
    return chain, key


@lru_cache(maxsize=8)
def _first(folder: str) -> tuple[str, str]:
    return held(folder)


def expiry(chain: str) -> datetime:
    """Return until when the first certificate of a chain is valid; raises ValueError for what is none."""
    leaf, mark, _ = chain.partition(_END)
    der = ssl.PEM_cert_to_DER_cert((leaf + mark).strip())
    signed = inside(der, _SEQUENCE, _SEQUENCE)
    validity = [value for tag, value in elements(signed) if tag == _SEQUENCE][_VALIDITY : _VALIDITY + 1]
    times = [time for found in validity for time in elements(found) if time[0] in (_UTC_TIME, _GENERALIZED_TIME)]
    if not times:
        raise ValueError("no certificate")
    tag, value = times[-1]
    form = "%y%m%d%H%M%SZ" if tag == _UTC_TIME else "%Y%m%d%H%M%SZ"
    return datetime.strptime(value.decode("ascii"), form).replace(tzinfo=timezone.utc)


def _text(folder: str, name: str) -> str:
    with open(os.path.join(folder, name), encoding="ascii") as file:
        return file.read()
