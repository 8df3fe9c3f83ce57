# SPDX-License-Identifier: Apache-2.0
"""What SPIRE's server and agent are configured with, and how a workload is registered, as they read it; pure.

The names are those of SPIRE 1.15 (doc/spire_server.md, doc/spire_agent.md, proto/spire/common). Starting them is for `daemon`.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

ADDRESS = "127.0.0.1"  # of the lab's own network namespace, which nothing outside reaches
# How soon a changed entry is known to the server's cache, and how often the agent asks: by default 5 s each.
SOON = "500ms"
CA_TTL = "168h"  # SPIRE shortens an SVID that would outlive its root; --ztc-svid-ttl goes up to a day
PARTNER = "partner.example"  # a trust domain of its own, with a server of its own, which ours may federate with
NODE = "node"  # path of the ID that every agent of ours has beside its own, and that entries hang on


def server(directory: str, trust_domain: str, port: int, svid_ttl: float) -> str:
    """Return a server's configuration; whatever it writes is in the directory, and its key outlives a restart."""
    return _json(
        {
            "server": {
                "bind_address": ADDRESS,
                "bind_port": port,
                "socket_path": f"{directory}/api.sock",
                "trust_domain": trust_domain,
                "data_dir": directory,
                "log_level": "INFO",
                "ca_ttl": CA_TTL,
                "default_x509_svid_ttl": f"{int(svid_ttl)}s",
                "experimental": {"cache_reload_interval": SOON},
            },
            "plugins": {
                "DataStore": _plugin("sql", database_type="sqlite3", connection_string=f"{directory}/data.sqlite3"),
                "NodeAttestor": _plugin("join_token"),
                "KeyManager": _plugin("disk", keys_path=f"{directory}/keys.json"),
            },
        }
    )


def agent(directory: str, trust_domain: str, port: int, token: str) -> str:
    """Return an agent's configuration: it knows a workload by the path of its program, whose hash it does not take."""
    return _json(
        {
            "agent": {
                "data_dir": directory,
                "server_address": ADDRESS,
                "server_port": port,
                "socket_path": f"{directory}/api.sock",
                "trust_bundle_path": f"{directory}/bundle.pem",
                "trust_domain": trust_domain,
                "join_token": token,
                "log_level": "INFO",
                "log_format": "json",
                "experimental": {"sync_interval": SOON},
            },
            "plugins": {
                "NodeAttestor": _plugin("join_token"),
                "KeyManager": _plugin("disk", directory=directory),
                "WorkloadAttestor": _plugin("unix", discover_workload_path=True, workload_size_limit=-1),
            },
        }
    )


def agent_id(trust_domain: str, token: str) -> str:
    """Return the ID by which the server knows an agent that joined by a token."""
    return f"spiffe://{trust_domain}/spire/agent/join_token/{token}"


def entries(trust_domain: str, ids: Mapping[str, str], paths: Mapping[str, str], federated: Iterable[str]) -> str:
    """Return registration entries for `entry create` and `entry update`, one a name; `paths` are those of the programs."""
    parent, trusted = f"spiffe://{trust_domain}/{NODE}", [f"spiffe://{name}" for name in federated]
    return _json(
        {
            "entries": [
                {
                    "entry_id": name,
                    "spiffe_id": spiffe_id,
                    "parent_id": parent,
                    "selectors": [{"type": "unix", "value": f"path:{paths[name]}"}],
                    "federates_with": trusted,
                }
                for name, spiffe_id in sorted(ids.items())
            ]
        }
    )


def _plugin(name: str, **data: Any) -> dict[str, Any]:
    return {name: {"plugin_data": data}}


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=1)
