# SPDX-License-Identifier: Apache-2.0
"""What the agent may rely on: the syntax and the standard library of Python 3.8, and nothing of ours."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "ztconform" / "agent"
MODULES = sorted(PACKAGE.glob("*.py"))

SMOKE = """
import asyncio, socket
from agent.nameserver import Nameserver
from agent.prober import Prober
from agent.server import Server
from agent.stream import Streams

async def main():
    apps = (("TCP", "http", 18480), ("TCP", "tcp", 18481), ("UDP", "udp", 18482), ("TCP", "http2", 18483), ("TCP", "grpc", 18484))
    server = Server("a/b", socket.socket, [{"number": n, "protocol": p, "app": a} for p, a, n in apps], ["127.0.38.1"])
    nameserver = Nameserver("a/dns", socket.socket, 18453, {"b.a.svc.cluster.local": ["127.0.38.1"]}, ["127.0.38.1"])
    server.start()
    nameserver.start()
    prober = Prober(socket.socket)
    where = {"resolver": ["127.0.38.1", 18453], "search": ["svc.cluster.local"], "name": "b.a"}
    specs = [{"kind": a, "port": n, **where} for _, a, n in apps]
    specs.append({"kind": "dns", "address": "127.0.38.1", "port": 18453, "path": "b.a.svc.cluster.local"})
    seen = await prober.probe_all(specs)
    assert [each["backend"] for each in seen] == ["a/b"] * 5 + ["a/dns"], seen
    here = {"address": "127.0.38.1", "port": 18480}
    raw = "GET / HTTP/1.1\\r\\nx-ztc-nonce: {nonce}\\r\\n\\r\\n"
    others = [{"kind": "websocket", **here}, {"kind": "http", "raw": raw, **here}]
    others += [{"kind": "http", "connection": "a", **here}] * 2
    assert [each["backend"] for each in await prober.probe_all(others)] == ["a/b"] * 4
    seen.clear()
    streams = Streams(prober)
    streams.start("s", specs, 0.01, seen.append)
    await asyncio.sleep(0.05)
    await streams.stop("s")
    assert {each["signal"] for each in seen} == {"answered"}, seen
    prober.close(); server.stop(); nameserver.stop()

asyncio.run(main())
"""


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_a_module_keeps_to_the_syntax_of_python_3_8(module: Path) -> None:
    ast.parse(module.read_text(encoding="utf-8"), feature_version=(3, 8))


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_a_module_imports_the_standard_library_and_its_own_package_alone(module: Path) -> None:
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert {alias.name.partition(".")[0] for alias in node.names} <= sys.stdlib_module_names
        elif isinstance(node, ast.ImportFrom):
            assert 1 == node.level or (0 == node.level and str(node.module).partition(".")[0] in sys.stdlib_module_names)


def test_every_kind_of_probe_works_on_the_oldest_python_there_is() -> None:
    """The package stands alone, as it does in a pod: nothing else of ours can be imported."""
    python = next((found for minor in range(8, 11) if (found := shutil.which(f"python3.{minor}"))), None)
    runs = python is not None and subprocess.run([python, "--version"], capture_output=True, check=False).returncode == 0
    if python is None or not runs:
        pytest.skip("no Python 3.8 to 3.10 on this machine: the agent ran on this one alone")
    line = [python, "-E", "-c", SMOKE]
    done = subprocess.run(line, cwd=PACKAGE.parent, capture_output=True, text=True, timeout=30, check=False)
    assert (0, "") == (done.returncode, done.stderr)


def test_the_smoke_names_every_server_and_prober_there_is() -> None:
    classes = {name for module in MODULES for name in re.findall(r"^class ([A-Z]\w+)", module.read_text(encoding="utf-8"), re.M)}
    assert {"Server", "Nameserver", "Prober", "Streams"} <= classes
