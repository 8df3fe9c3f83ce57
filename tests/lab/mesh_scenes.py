# SPDX-License-Identifier: Apache-2.0
"""What the test_mesh_* tests let happen inside a sandbox: real pods, one real Envoy, real probes; each scene a process.

Nothing is judged here: a scene returns what it saw as JSON, and the test that called `run` says what it should have been.
"""

import asyncio
import contextlib
import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from tests.lab import kernel_scenes
from ztconform.agent.files import raise_limit
from ztconform.agent.prober import Prober
from ztconform.agent.server import Server
from ztconform.errors import ClusterError
from ztconform.lab import netlink, netns, nfnetlink, ruletext, sandbox, servicenat
from ztconform.lab.inventory import Inventory, LabPod
from ztconform.lab.mesh import capture, filters, resources, tls, upstreams
from ztconform.lab.mesh.authorization import authorization as authorization_of
from ztconform.lab.mesh.envoy import Envoy
from ztconform.lab.mesh.scratch import Scratch
from ztconform.lab.mesh.view import Authorization, Endpoint, MeshConfig, MeshedPod, MeshService, Mode, Normalization, RbacFilter
from ztconform.lab.ruleset import Chain, Go, Oif, Rule, Table
from ztconform.lab.selectors import LabelSelector, Requirement
from ztconform.lab.services import Service, ServicePort
from ztconform.lab.wiring import PodLink, Wiring
from ztconform.model import App, Port, Ref

ACCOUNTS = ("web", "api", "intruder", "third")
SHOP = "spiffe://cluster.local/ns/shop/sa/"
TIMEOUT = 2.0  # seconds; an answer comes within milliseconds


def given(count: int = 0) -> dict[str, Any]:
    """Return what a scene cannot make for itself: an interpreter of its own may lack the libraries."""
    from ztconform.lab.mesh import envoy
    from ztconform.mesh.svid import Authority

    authority = Authority("cluster.local")
    accounts = (*ACCOUNTS, *(f"p{number}" for number in range(count)))
    issued = {account: [authority.issue(SHOP + account, 3600.0) for _ in range(2)] for account in accounts}
    pems = {account: [[svid.chain_pem, svid.key_pem, svid.serial] for svid in svids] for account, svids in issued.items()}
    foreign = authority.foreign().issue(SHOP + "web")
    pems["foreign"] = [[foreign.chain_pem, foreign.key_pem, foreign.serial]]
    return {"envoy": envoy.find(), "bundle": authority.bundle_pem, "svids": pems}


def run(who: str, scene: str, *arguments: str, count: int = 0, seconds: float = 60.0) -> Any:
    """Run a scene to its end as "self" or "nobody" and return what it saw."""
    environment = {**os.environ, "PYTHONPATH": str(kernel_scenes.ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [*kernel_scenes.interpreter_of(who), __file__, scene, *arguments]
    ended = subprocess.run(
        command, env=environment, input=json.dumps(given(count)), capture_output=True, text=True, timeout=seconds, check=False
    )
    assert (0, "") == (ended.returncode, ended.stderr), f"{scene}: {ended.stderr or ended.stdout}"
    return json.loads(ended.stdout)


@dataclass(frozen=True, kw_only=True)
class Given:
    """Say what one pod of a world is."""

    name: str
    node: int
    host: int
    account: str = ""  # "" without a sidecar
    ports: tuple[Port, ...] = ()


HTTP = Port(number=8080, name="http", app="http", service=80)
TCP = Port(number=9000, name="tcp", app="tcp", service=9000)
SECOND = Port(number=8081, name="second", app="http", service=81)
UNDECLARED_HTTP, UNDECLARED_TCP = 8090, 9090  # served by api, and not among its ports

PODS = (
    Given(name="web", node=0, host=2, account="web"),
    Given(name="intruder", node=0, host=3, account="intruder"),
    Given(name="legacy", node=0, host=4, ports=(HTTP,)),
    Given(name="api", node=1, host=2, account="api", ports=(HTTP, SECOND, TCP)),
    Given(name="third", node=1, host=3, account="third", ports=(HTTP,)),
)
SERVICES = {
    "api": ("api",),
    "legacy": ("legacy",),
    "mixed": ("api", "legacy"),
    "both": ("api", "third"),
    "third": ("third",),
}


@dataclass(kw_only=True)
class World:
    """Run pods and their mesh."""

    given: Mapping[str, Any]
    pods: Sequence[Given] = PODS
    services: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: SERVICES)
    modes: Mapping[str, Mode] = field(default_factory=dict)
    port_modes: Mapping[str, Mapping[int, Mode]] = field(default_factory=dict)
    authorization: Mapping[str, Authorization] = field(default_factory=dict)
    config: MeshConfig = field(default_factory=MeshConfig)
    served: bool = True
    identities: dict[str, str] = field(default_factory=dict)  # pod -> another account, whose SVID it presents

    def __post_init__(self) -> None:
        self.wiring = Wiring()
        links = [
            PodLink(key=p.name, node=p.node, device=f"cali-{p.name}", v4=self.v4(p.name), v6=self.v6(p.name)) for p in self.pods
        ]
        self.wiring.add(links)
        self.scratch = Scratch([self.given["envoy"]])
        self.envoy = Envoy(self.given["envoy"], self.scratch.path)
        self.paths = {p.name: self.scratch.bind(self.wiring.netns(p.name)) for p in self.pods if p.account}
        self.inventory = Inventory(pods=tuple(map(self._lab_pod, self.pods)), namespaces={"shop": {}})
        # By what they select, for a Service over two workloads' pods: each of them is a workload by itself.
        self.vips = servicenat.allocate([self._service(name) for name in self.services], {})
        table = self._translations()
        for node in self.wiring.nodes:
            kernel_scenes.loaded(node, table)
        for name in self.paths:
            capture.install(self.wiring.netns(name))
        self.servers = {p.name: self._served(p) for p in self.pods if self.served}
        self.probers = {p.name: Prober(partial(netns.open_socket, self.wiring.netns(p.name))) for p in self.pods}

    def _given(self, name: str) -> Given:
        return next(p for p in self.pods if p.name == name)

    def v4(self, name: str) -> str:
        pod = self._given(name)
        return f"10.244.{pod.node}.{pod.host}"

    def v6(self, name: str) -> str:
        pod = self._given(name)
        return f"fd00:10:244:{pod.node}::{pod.host:x}"

    def vip(self, service: str, family: int = 4) -> str:
        vip = self.vips[Ref("shop", service)]
        return vip.v4 if family == 4 else vip.v6

    def _lab_pod(self, pod: Given) -> LabPod:
        return LabPod(
            ref=Ref("shop", pod.name),
            workload=Ref("shop", pod.name),
            node=pod.node,
            device=f"cali-{pod.name}",
            v4=self.v4(pod.name),
            v6=self.v6(pod.name),
            labels={"app": pod.name},
            ports=pod.ports,
            serves=True,
            ready=True,
        )

    def _service(self, name: str) -> Service:
        selected = LabelSelector((Requirement("app", "In", frozenset(self.services[name])),))
        ports = {port.number: port for member in self.services[name] for port in self._given(member).ports}
        exposed = tuple(
            ServicePort(number=port.service, target=port.name, name=port.name) for port in ports.values() if port.service
        )
        return Service(ref=Ref("shop", name), ports=exposed, selected=selected)

    def _translations(self) -> Any:
        return servicenat.compile_services([self._service(name) for name in self.services], self.vips, self.inventory)

    def _served(self, pod: Given) -> Server:
        ports = [{"number": p.number, "protocol": "TCP", "app": p.app} for p in pod.ports]
        if pod.name == "api":
            ports += [{"number": UNDECLARED_HTTP, "protocol": "TCP", "app": "http"}]
            ports += [{"number": UNDECLARED_TCP, "protocol": "TCP", "app": "tcp"}]
        server = Server(f"shop/{pod.name}", partial(netns.open_socket, self.wiring.netns(pod.name)), ports)
        server.start()
        return server

    def meshed(self) -> list[MeshedPod]:
        found = []
        for pod in self.inventory.pods:
            account = self._given(pod.ref.name).account
            if account:
                default = self.modes.get(pod.ref.name, "PERMISSIVE")
                ports = {port.number: default for port in pod.ports}
                found.append(
                    MeshedPod(
                        pod=pod,
                        principal=f"cluster.local/ns/shop/sa/{account}",
                        netns=self.paths[pod.ref.name],
                        modes={**ports, **self.port_modes.get(pod.ref.name, {})},
                        default_mode=default,
                        authorization=self.authorization.get(pod.ref.name, Authorization()),
                    )
                )
        return found

    def mesh_services(self) -> list[MeshService]:
        modes = {pod.pod.ref.name: pod.modes for pod in self.meshed()}
        found = []
        for name, members in self.services.items():
            ports = {port.number: port for member in members for port in self._given(member).ports}
            for port in ports.values():
                endpoints = tuple(
                    Endpoint(
                        v4=self.v4(member),
                        v6=self.v6(member),
                        port=port.number,
                        principal=f"cluster.local/ns/shop/sa/{self._given(member).account}" if member in modes else "",
                        mode=modes[member][port.number] if member in modes else None,
                    )
                    for member in members
                    if port in self._given(member).ports
                )
                common: dict[str, Any] = {"app": port.app, "endpoints": endpoints}
                hosts = (f"{name}.shop.svc.cluster.local", f"{name}.shop.svc", f"{name}.shop")
                vip = self.vips[Ref("shop", name)]
                found.append(
                    MeshService(
                        service=Ref("shop", name), port=port.service or port.number, v4=vip.v4, v6=vip.v6, hosts=hosts, **common
                    )
                )
                hosts = tuple(host.replace(name, f"{name}-headless", 1) for host in hosts)
                ref = Ref("shop", f"{name}-headless")
                found.append(MeshService(service=ref, port=port.number, v4="", v6="", hosts=hosts, headless=True, **common))
        return found

    def resources(self) -> resources.Resources:
        return resources.resources(self.meshed(), self.mesh_services(), self.config, self.envoy.resource_directory)

    def secret(self, pod: str, account: str, which: int = 0) -> dict[str, Any]:
        name = resources.key(Ref("shop", pod))
        chain, key, _ = self.given["svids"][account][which]
        return {name: tls.identity(name, chain, key)}

    def secrets(self) -> dict[str, Any]:
        found = {tls.BUNDLE: tls.bundle({"cluster.local": self.given["bundle"]})}
        for pod in self.pods:
            if pod.account:
                found |= self.secret(pod.name, self.identities.get(pod.name, pod.account))
        return found

    async def start(self) -> float:
        begin = time.perf_counter()
        made = self.resources()
        await self.envoy.start(made.listeners, made.clusters, self.secrets(), made.authorization)
        return time.perf_counter() - begin

    async def push(self) -> None:
        made = self.resources()
        await self.envoy.push(
            listeners=made.listeners, clusters=made.clusters, secrets=self.secrets(), authorization=made.authorization
        )

    async def authorize(self, pod: str, found: Authorization) -> None:
        self.authorization = {**self.authorization, pod: found}
        await self.envoy.push(authorization=authorization_of(self.meshed()))

    async def ask(self, source: str, address: str, port: int, kind: str = "http", **fields: Any) -> dict[str, Any]:
        spec = {"kind": kind, "address": address, "port": port, "timeout": TIMEOUT, **fields}
        return await self.probers[source].probe(spec)

    async def told(self, source: str, address: str, port: int, kind: str = "http", **fields: Any) -> str:
        """Return in a few words what a probe met, and as whom the server saw it."""
        return self.words(await self.ask(source, address, port, kind, **fields))

    def words(self, observation: Mapping[str, Any]) -> str:
        met = observation["signal"]
        if met != "answered":
            return f"{met} {observation['stage']} {observation['detail']}".strip()
        status = observation["status"]
        if not observation["backend"]:
            return f"{status} {observation['server']}: {observation['body'].strip()}"[:90]
        seen = {nonce: identity for nonce, _, _, identity in self.servers[observation["backend"].partition("/")[2]].sightings()}
        identity = seen[observation["nonce"]]
        account = identity.rpartition("/sa/")[2] if identity else "nobody"
        name = observation["backend"].partition("/")[2]
        return f"{status} from {name} as {account}" if status else f"echo from {name}"

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.envoy.log.read_text().splitlines()]

    async def logged(self, **wanted: Any) -> dict[str, Any]:
        """Return the first entry of the access log that has these values, once there is one."""
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            for entry in self.log():
                if all(entry.get(key) == value for key, value in wanted.items()):
                    return entry
            await asyncio.sleep(0.01)  # the log is read again
        return {}


def rbac(action: Literal["ALLOW", "DENY"], **conditions: str) -> RbacFilter:
    """Return a filter with one rule: account, method, or neither."""
    permission: dict[str, Any] = {"any": True}
    if "method" in conditions:
        permission = {"header": {"name": ":method", "string_match": {"exact": conditions["method"]}}}
    principal: dict[str, Any] = {"any": True}
    if "account" in conditions:
        principal = {"authenticated": {"principal_name": {"exact": SHOP + conditions["account"]}}}
    rule = {"permissions": [permission], "principals": [principal]}
    rules = {"action": action, "policies": {"ns[shop]-policy[p]-rule[0]": rule}}
    return RbacFilter(name=action.lower(), rules=rules)


def only(account: str) -> Authorization:
    """Admit one account on every port."""
    return Authorization(http=(rbac("ALLOW", account=account),), tcp=(rbac("ALLOW", account=account),))


async def modes(given: dict[str, Any]) -> Any:
    """Ask in every way under PERMISSIVE, STRICT and DISABLE, and with modes of single ports."""
    world = World(given=given)
    await world.start()
    found: dict[str, Any] = {"PERMISSIVE": await _every_way(world)}
    for mode in ("STRICT", "DISABLE"):
        world.modes = {"api": mode}
        await world.push()
        found[mode] = await _every_way(world)
    world.modes, world.port_modes = {"api": "STRICT"}, {"api": {8080: "PERMISSIVE", 8081: "DISABLE", UNDECLARED_HTTP: "DISABLE"}}
    await world.push()
    found["by port"] = {
        "legacy 8080": await world.told("legacy", world.v4("api"), 8080),
        "legacy 8081": await world.told("legacy", world.v4("api"), 8081),
        "legacy 9000": await world.told("legacy", world.v4("api"), 9000, "tcp"),
        "legacy undeclared, named": await world.told("legacy", world.v4("api"), UNDECLARED_HTTP),
        "legacy undeclared": await world.told("legacy", world.v4("api"), UNDECLARED_TCP, "tcp"),
        "web 80": await world.told("web", world.vip("api"), 80),
        "web 81": await world.told("web", world.vip("api"), 81),
    }
    return found


async def _every_way(world: World) -> dict[str, str]:
    name, api = "api-headless.shop.svc.cluster.local", world.v4("api")
    return {
        "web by VIP": await world.told("web", world.vip("api"), 80),
        "web by VIP, IPv6": await world.told("web", world.vip("api", 6), 80),
        "web by headless name": await world.told("web", api, 8080, host=name),
        "web by headless name with port, IPv6": await world.told("web", world.v6("api"), 8080, host=f"{name}:8080"),
        "web by address": await world.told("web", api, 8080),
        "web TCP by VIP": await world.told("web", world.vip("api"), 9000, "tcp"),
        "web TCP by address": await world.told("web", api, 9000, "tcp"),
        "web undeclared": await world.told("web", api, UNDECLARED_HTTP),
        "api to itself by VIP": await world.told("api", world.vip("api"), 80),
        "api to itself by address": await world.told("api", api, 8080),
        "legacy by VIP": await world.told("legacy", world.vip("api"), 80),
        "legacy by address": await world.told("legacy", api, 8080),
        "legacy by address, IPv6": await world.told("legacy", world.v6("api"), 8080),
        "legacy TCP": await world.told("legacy", api, 9000, "tcp"),
        "legacy undeclared": await world.told("legacy", api, UNDECLARED_HTTP),
        "legacy undeclared TCP": await world.told("legacy", api, UNDECLARED_TCP, "tcp"),
        "web to legacy by VIP": await world.told("web", world.vip("legacy"), 80),
        "web to legacy by address": await world.told("web", world.v4("legacy"), 8080),
        "web to nobody": await world.told("web", world.v4("legacy"), 4444, "tcp"),
        "health": await world.told("legacy", api, 61020),
        "health from a meshed pod": await world.told("web", api, 61020),
        "the proxy itself, inbound": await world.told("legacy", api, 15006),
        "the proxy itself, outbound": await world.told("legacy", api, 15001),
        "its own proxy": await world.told("web", world.v4("web"), 15001),
    }


async def authorization(given: dict[str, Any]) -> Any:
    """Refuse by rule and by default, on HTTP and TCP, and tell what the log says of it."""
    world = World(given=given, modes={"api": "STRICT"}, authorization={"api": only("web")})
    await world.start()
    api = world.vip("api")
    found: dict[str, Any] = {
        "web": await world.told("web", api, 80),
        "intruder": await world.told("intruder", api, 80, nonce="refused"),
        "web TCP": await world.told("web", api, 9000, "tcp"),
        "intruder TCP": await world.told("intruder", api, 9000, "tcp"),
        "intruder to another": await world.told("intruder", world.vip("third"), 80),
    }
    refused = await world.logged(side="inbound-request", nonce="refused")
    found["refused"] = [refused.get(key) for key in ("pod", "code", "details", "peer", "chain", "tls")]
    refused = await world.logged(side="inbound-connection", peer=SHOP + "intruder", chain="9000-mtls")
    found["refused TCP"] = [refused.get(key) for key in ("pod", "terminated")]
    deny = Authorization(http=(rbac("DENY", method="DELETE"),))
    await world.authorize("api", deny)
    found["DELETE"] = await world.told("web", api, 80, method="DELETE", nonce="deleted")
    found["GET"] = await world.told("web", api, 80)
    found["deleted"] = (await world.logged(side="inbound-request", nonce="deleted")).get("details")
    shadow = replace(rbac("DENY", method="GET"), rules=None, shadow_rules=rbac("DENY", method="GET").rules)
    await world.authorize("api", Authorization(http=(shadow,)))
    found["dry run"] = await world.told("web", api, 80, nonce="shadow")
    found["shadow"] = (await world.logged(side="inbound-request", nonce="shadow")).get("http_rbac")
    await world.authorize("api", Authorization())
    found["none"] = [await world.told("intruder", api, 80), await world.told("intruder", api, 9000, "tcp")]
    return found


async def identity(given: dict[str, Any]) -> Any:
    """Meet servers that are not who they should be, Services of several accounts, and Services that are meshed in part."""
    world = World(given=given, modes={"third": "STRICT"})
    await world.start()
    found: dict[str, Any] = {}
    found["both"] = sorted({await world.told("web", world.vip("both"), 80) for _ in range(40)})
    found["mixed"] = sorted({await world.told("web", world.vip("mixed", family), 80) for family in (4, 6) for _ in range(20)})
    await world.envoy.push(secrets=world.secret("api", "intruder"))
    found["impostor by VIP"] = await world.told("web", world.vip("api"), 80, nonce="impostor")
    refused = await world.logged(side="outbound-request", nonce="impostor")
    found["impostor"] = [refused.get(key) for key in ("pod", "code", "flags", "upstream_failure")]
    found["impostor TCP"] = await world.told("web", world.vip("api"), 9000, "tcp")
    name = "api-headless.shop.svc"
    found["impostor by headless name"] = await world.told("web", world.v4("api"), 8080, host=name)
    found["impostor in both"] = sorted({(await world.told("web", world.vip("both"), 80))[:20] for _ in range(40)})
    await world.envoy.push(secrets=world.secret("api", "foreign"))
    found["foreign by VIP"] = (await world.told("web", world.vip("api"), 80))[:20]
    await world.envoy.push(secrets=world.secret("api", "api"))
    found["itself again"] = await world.told("web", world.vip("api"), 80)
    return found


async def forged(given: dict[str, Any]) -> Any:
    """Forge the header that names the peer, from a meshed pod, from one without a sidecar, and with a stolen certificate."""
    world = World(given=given)
    await world.start()
    header = [["x-forwarded-client-cert", f"By={SHOP}api;URI={SHOP}third"]]
    api, fields = world.v4("api"), {"headers": header}
    found = {
        "meshed": await world.told("web", world.vip("api"), 80, **fields),
        "meshed by address": await world.told("web", api, 8080, **fields),
        "unmeshed": await world.told("legacy", api, 8080, **fields),
    }
    for who, alpn in (("intruder", ["istio"]), ("intruder", []), ("foreign", ["istio"]), ("", ["istio"])):
        for mode in ("PERMISSIVE", "STRICT"):
            world.modes = {"api": mode}
            await world.push()
            found[f"{mode} {who or 'none'} {alpn}"] = await _by_hand(world, "legacy", api, 8080, who, alpn, header)
    return found


async def _by_hand(
    world: World, source: str, address: str, port: int, who: str, alpn: list[str], headers: Sequence[Sequence[str]] = ()
) -> str:
    """Speak TLS ourselves, under somebody's certificate or none, and return the status and whom the server saw, or the alert."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if who:
        pem = world.scratch.path / "stolen.pem"
        pem.write_text("".join(world.given["svids"][who][0][:2]))
        context.load_cert_chain(pem)
    if alpn:
        context.set_alpn_protocols(alpn)
    sock = netns.open_socket(world.wiring.netns(source), kernel_scenes.family(address), 1)
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (address, port))
        reader, writer = await asyncio.open_connection(sock=sock, ssl=context, server_hostname="api")
        # TLS 1.3: the alert comes behind the handshake, and a request sent before it has come would meet a reset.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.05)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        writer.write(f"GET / HTTP/1.1\r\nHost: api\r\nX-Ztc-Nonce: byhand\r\n{lines}Connection: close\r\n\r\n".encode())
        answer = (await asyncio.wait_for(reader.read(-1), TIMEOUT)).decode()
        writer.close()
    except (ssl.SSLError, OSError) as error:
        return getattr(error, "reason", None) or type(error).__name__
    seen = world.servers["api"].sightings()[-1:]
    status = answer.split(" ")[1] if answer else "nothing"
    return f"{status} as {(seen[0][3] or 'nobody').rpartition('/sa/')[2]}" if status == "200" else status


async def changes(given: dict[str, Any], count: str) -> Any:
    """Turn authorization over and over, and time until it holds for new connections and on one that stays open."""
    world = World(given=given, modes={"api": "STRICT"})
    await world.start()
    api = world.vip("api")
    allow, refuse = only("web"), only("intruder")
    await world.authorize("api", allow)
    took, wrong = [], []
    for number in range(int(count)):
        wanted, found = (("403", refuse), ("200", allow))[number % 2]
        begin = time.perf_counter()
        await world.authorize("api", found)
        pushed = time.perf_counter() - begin
        first = await world.told("web", api, 80)
        wrong += [] if first.startswith(wanted) else [first]
        while not (await world.told("web", api, 80)).startswith(wanted):
            pass
        took.append([pushed, time.perf_counter() - begin])
    return {"took": took, "wrong": wrong, "kept": await _on_kept(world, allow, refuse)}


async def _on_kept(world: World, allow: Authorization, refuse: Authorization) -> list[str]:
    """Return what requests met on one connection to the server's proxy while authorization changed twice."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    pem = world.scratch.path / "kept.pem"
    pem.write_text("".join(world.given["svids"]["web"][0][:2]))
    context.load_cert_chain(pem)
    sock = netns.open_socket(world.wiring.netns("legacy"), kernel_scenes.family(world.v4("api")), 1)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (world.v4("api"), 8080))
    reader, writer = await asyncio.open_connection(sock=sock, ssl=context, server_hostname="api")
    found = []
    for authorization in (allow, refuse, allow):
        await world.authorize("api", authorization)
        writer.write(b"GET / HTTP/1.1\r\nHost: api\r\n\r\n")
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), TIMEOUT)).decode().lower()
        await reader.readexactly(int(head.partition("content-length: ")[2].partition("\r")[0]))
        found.append(head.split(" ")[1])
    writer.close()
    return found


async def rotation(given: dict[str, Any], size: str) -> Any:
    """Rotate the SVIDs of both sides again and again while so many requests are under way at once."""
    upstreams.CONNECT_TIMEOUT = 5.0  # what a machine without a core to spare is late with is not for this scene
    world = World(given=given, modes={"api": "STRICT"})
    await world.start()
    spec = {"kind": "http", "address": world.vip("api"), "port": 80, "timeout": 20.0}
    under_way = asyncio.gather(world.probers["web"].probe_all([dict(spec) for _ in range(int(size))]))
    took: list[float] = []
    while not under_way.done():
        for pod in ("web", "api"):
            begin = time.perf_counter()
            await world.envoy.push(secrets=world.secret(pod, pod, (len(took) // 2 + 1) % 2))
            took.append(time.perf_counter() - begin)
            await asyncio.sleep(0.02)  # between two rotations, so that they are not all the machine does
    met: dict[str, int] = {}
    for observation in (await under_way)[0]:
        words = world.words(observation)
        met[words] = met.get(words, 0) + 1
    await asyncio.sleep(0.1)  # beyond the interval at which the log is written
    serials = {entry.get("serial") for entry in world.log() if entry["side"] == "inbound-request"}
    known = [given["svids"]["web"][which][2] in serials for which in (0, 1)]
    return {"met": met, "took": took, "both certificates used": known}


async def killed(given: dict[str, Any]) -> Any:
    """Kill Envoy and start it again; tell it what it cannot take; start one that is not there."""
    world = World(given=given, modes={"api": "STRICT"})
    took = await world.start()
    api = world.vip("api")
    found: dict[str, Any] = {"before": await world.told("web", api, 80), "ready": took}
    pid = world.envoy.pid
    assert pid is not None
    os.kill(pid, 9)
    while world.envoy.pid is not None:
        await asyncio.sleep(0.001)  # the state is asked again
    found["killed"] = [await world.told("web", api, 80), await world.told("legacy", world.v4("api"), 8080)]
    await world.envoy.restart()
    found["again"] = [await world.told("web", api, 80), await world.told("legacy", world.v4("api"), 8080)]
    made = world.resources()
    refused = []
    deny = made.authorization["http-deny"]["typed_config"]
    wrong = filters.typed("config.cluster.v3.Cluster", name="wrong", connect_timeout="never")
    for change in (
        {"clusters": [*made.clusters, wrong]},
        {"listeners": [*made.listeners, {**made.listeners[0], "name": "wrong", "filter_chains": []}]},
        {"secrets": {"shop.api": tls.identity("shop.api", "no certificate", "no key")}},
        {
            "authorization": {
                "http-deny": {**made.authorization["http-deny"], "typed_config": {**deny, "rules": {"policies": {"p": {}}}}}
            }
        },
    ):
        said = []
        for _ in range(2):  # what was refused once is refused again, and not taken for known
            try:
                await world.envoy.push(**change)
            except ClusterError as error:
                said.append(str(error))
        refused.append(said)
    found["refused"] = refused
    await world.envoy.push(secrets={"nobody": {**world.secret("api", "api")["shop.api"], "name": "nobody"}})
    await world.push()
    found["mended"] = await world.told("web", api, 80)
    world.envoy.stop()
    missing = Envoy("/nowhere/envoy", world.scratch.path)
    for binary in (missing, Envoy("/bin/false", world.scratch.path)):
        try:
            await binary.restart()
        except ClusterError as error:
            found.setdefault("not started", []).append(str(error))
    return found


async def burst(given: dict[str, Any], size: str, to: str) -> Any:
    """Send many at once, and then as many as go in two seconds."""
    world = World(given=given, modes={"api": "STRICT"})
    await world.start()
    address, port, source = {
        "mtls": (world.vip("api"), 80, "web"),
        "plain": (world.v4("legacy"), 8080, "legacy"),
        "passthrough": (world.vip("legacy"), 80, "web"),
    }[to]
    spec = {"kind": "http", "address": address, "port": port, "timeout": 30.0}
    found: dict[str, Any] = {}
    begin = time.perf_counter()
    many = await world.probers[source].probe_all([dict(spec) for _ in range(int(size))])
    found["burst"] = time.perf_counter() - begin
    met: dict[str, int] = {}
    for observation in many:
        words = f"{observation['signal']} {observation['status']} {observation['detail']}"
        met[words] = met.get(words, 0) + 1
    found["met"] = met
    count, begin = 0, time.perf_counter()
    serial = []
    for _ in range(100):
        one = time.perf_counter()
        await world.probers[source].probe(spec)
        serial.append(time.perf_counter() - one)
    found["serial ms"] = round(sorted(serial)[50] * 1e3, 2)

    async def caller() -> None:
        nonlocal count
        while time.perf_counter() < begin + 2:
            done = (await world.probers[source].probe(spec))["status"] == 200
            count += done  # in a step of its own: others count while this one waits

    begin = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(32)))
    found["per second"] = round(count / (time.perf_counter() - begin))
    found["memory MB"] = world.envoy.memory() >> 20
    return found


async def leak(given: dict[str, Any], count: str) -> Any:
    """Open very many connections under STRICT, and count what the server's proxy and the clients saw of plaintext."""
    upstreams.CONNECT_TIMEOUT = 5.0  # what a machine without a core to spare is late with is not for this scene
    world = World(given=given, modes={"api": "STRICT"})
    await world.start()
    met: dict[str, int] = {}
    left = int(count)

    async def caller(number: int) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            address = world.vip("api", 6 if number % 4 == 0 else 4)
            spec = {"kind": "http", "address": address, "port": 80, "timeout": 5.0}
            observation = await world.probers["web"].probe(spec)
            words = f"{observation['signal']} {observation['status']} {observation['server']}"
            met[words] = met.get(words, 0) + 1

    begin = time.perf_counter()
    await asyncio.gather(*(caller(number) for number in range(32)))
    took = time.perf_counter() - begin
    await asyncio.sleep(0.1)  # beyond the interval at which the log is written
    chains: dict[str, int] = {}
    for entry in world.log():
        if entry["side"] == "inbound-connection":
            words = f"{entry.get('chain')} {entry.get('tls')}"
            chains[words] = chains.get(words, 0) + 1
    return {"met": met, "chains": chains, "per second": round(int(count) / took)}


async def many(given: dict[str, Any], count: str) -> Any:
    """Mesh many pods, each with a Service of its own, and tell how long it takes until all are ready and what it costs."""
    number = int(count)
    pods = tuple(Given(name=f"p{at}", node=at % 2, host=at // 2 + 2, account=f"p{at}", ports=(HTTP,)) for at in range(number))
    world = World(given=given, pods=pods, services={pod.name: (pod.name,) for pod in pods})
    begin = time.perf_counter()
    made = world.resources()
    compiled = time.perf_counter()
    size = sum(len(json.dumps(part)) for part in (made.listeners, made.clusters, made.authorization))
    before = time.perf_counter()
    await world.envoy.start(made.listeners, made.clusters, world.secrets(), made.authorization)
    ready = time.perf_counter()
    met = await asyncio.gather(*(world.told(f"p{at}", world.vip(f"p{(at + 1) % number}"), 80) for at in range(number)))
    wrong = [words for at, words in enumerate(met) if words != f"200 from p{(at + 1) % number} as p{at}"]
    pushed = time.perf_counter()
    await world.authorize("p0", only("p1"))
    changed = time.perf_counter()
    world.modes = {"p0": "STRICT"}
    await world.push()
    return {
        "compiled": compiled - begin,
        "ready": ready - before,
        "wrong": wrong[:3],
        "authorization": changed - pushed,
        "modes": time.perf_counter() - changed,
        "bytes": size,
        "memory": world.envoy.memory(),
    }


async def listed(given: dict[str, Any], nft: str) -> Any:
    """Return the capture rules as `nft` lists them when we loaded them, and when it did from our text."""
    del given
    with netlink.open_in(netns.own(), netlink.NETLINK_NETFILTER) as sock:
        nfnetlink.load(sock, nfnetlink.encode(capture.table()))
    found = []
    for script in ("", f"delete table inet {capture.TABLE}\n" + ruletext.text(capture.table())):
        subprocess.run([nft, "-f", "-"], input=script, text=True, check=True)
        found.append(subprocess.run([nft, "-y", "list", "ruleset"], capture_output=True, text=True, check=True).stdout)
    return found


async def leftovers(given: dict[str, Any]) -> Any:
    """Bind and unbind a namespace's path, and tell which mounts are ours."""
    scratch = Scratch([given["envoy"]])
    fd = netns.create()
    paths = [scratch.bind(fd), scratch.bind(fd)]
    same = [os.stat(path).st_ino == os.fstat(fd).st_ino for path in paths]
    scratch.unbind(paths[0])
    left = sorted(os.listdir(scratch.path / "netns"))
    return {"path": str(scratch.path), "same": same, "left": left}


async def paths(given: dict[str, Any], sent: str) -> Any:
    """Return what the application sees of each path under each normalization, from a meshed client and a plaintext one."""
    world = World(given=given)
    await world.start()
    found: dict[str, list[list[str]]] = {}
    settings: tuple[Normalization, ...] = ("NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES")
    for setting in settings:
        world.config = MeshConfig(path_normalization=setting)
        await world.push()
        for path in json.loads(sent):
            meshed = await world.ask("web", world.vip("api"), 80, path=path)
            plain = await world.ask("legacy", world.v4("api"), 8080, path=path)
            found.setdefault(path, []).append([_seen_path(meshed), _seen_path(plain)])
    return found


def _seen_path(observation: Mapping[str, Any]) -> str:
    if not observation["backend"]:
        return f"{observation['signal']} {observation['status']}"
    return str(json.loads(observation["body"])["path"])


async def applications(given: dict[str, Any]) -> Any:
    """Tell what an application first receives on ports of every kind, and what the client then hears of it."""
    ports = [Port(number=7000 + at, name=f"p{at}", app=app, service=7000 + at) for at, app in enumerate(APPS)]
    pods = tuple(replace(pod, ports=tuple(ports)) if pod.name == "api" else pod for pod in PODS)
    world = World(given=given, pods=pods, services={"api": ("api",)}, served=False)
    received: asyncio.Queue[str] = asyncio.Queue()

    async def application(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, app: str) -> None:
        with contextlib.suppress(asyncio.CancelledError, OSError):  # the client or the scene is gone
            if app == "tcp":
                writer.write(b"banner\n")  # it speaks first
            head = (await reader.read(4096)).decode("latin-1")
            received.put_nowait(head.partition("\r")[0])
            if "websocket" in head.lower():
                writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
                writer.write(await reader.read(100))
            await writer.drain()

    for port in ports:
        sock = kernel_scenes.listener(world.wiring.netns("api"), "::", port.number)
        sock.setblocking(False)
        await asyncio.start_server(partial(application, app=port.app), sock=sock)
    await world.start()
    found: dict[str, Any] = {}
    for mode in ("PERMISSIVE", "STRICT"):
        world.modes = {"api": mode}
        await world.push()
        for app, port_number in zip(APPS[:3], (7000, 7001, 7002), strict=True):
            for what, data in (("HTTP/1.1", b"GET / HTTP/1.1\r\nHost: api\r\n\r\n"), ("HTTP/2", _HTTP2_REQUEST)):
                async with _connected(world, world.vip("api"), port_number) as (_, writer):
                    writer.write(data)
                    found[f"{mode}: {what} to {app}"] = await asyncio.wait_for(received.get(), TIMEOUT)
        async with _connected(world, world.vip("api"), 7000) as (reader, writer):
            writer.write(_UPGRADE)
            head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), TIMEOUT)).decode()
            writer.write(b"hello")
            echo = (await asyncio.wait_for(reader.readexactly(5), TIMEOUT)).decode()
            found[f"{mode}: WebSocket"] = [received.get_nowait(), head.partition("\r")[0], echo]
        async with _connected(world, world.vip("api"), 7003) as (reader, writer):
            banner = (await asyncio.wait_for(reader.readline(), TIMEOUT)).decode()
            writer.write(b"hello")
            found[f"{mode}: tcp"] = [banner, await asyncio.wait_for(received.get(), TIMEOUT)]
    return found


@contextlib.asynccontextmanager
async def _connected(world: World, address: str, port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    sock = netns.open_socket(world.wiring.netns("web"), kernel_scenes.family(address), 1)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (address, port))
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        yield reader, writer
    finally:
        writer.close()


APPS: tuple[App, ...] = ("http", "http2", "grpc", "tcp")
_UPGRADE = b"GET /ws HTTP/1.1\r\nHost: api\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
# The preface, empty SETTINGS, and HEADERS (end of stream, end of headers): GET / http and the authority "api", by RFC 7541.
_HTTP2_REQUEST = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("0000000400000000000000080105000000018284864103617069")


async def dropped(given: dict[str, Any]) -> Any:
    """Drop at the server's node what goes to one pod, then let it pass again."""
    world = World(given=given, modes={"api": "STRICT"})
    await world.start()
    found: dict[str, Any] = {"before": await world.told("web", world.vip("api"), 80)}
    drop = Rule((Oif("cali-api"),), (Go("drop"),))
    kernel_scenes.loaded(world.wiring.nodes[1], Table("policy", (), (Chain("forward", (drop,), kernel_scenes.FORWARD),)))
    begin = time.perf_counter()
    found["dropped"] = await world.told("web", world.vip("api"), 80, nonce="dropped")
    found["took"] = time.perf_counter() - begin
    entry = await world.logged(side="outbound-request", nonce="dropped")
    found["logged"] = [entry.get("code"), entry.get("flags")]
    found["TCP"] = await world.told("web", world.vip("api"), 9000, "tcp")
    specs = [{"kind": "http", "address": world.vip("api"), "port": 80, "timeout": TIMEOUT} for _ in range(64)]
    others = [{"kind": "http", "address": world.vip("third"), "port": 80, "timeout": TIMEOUT} for _ in range(8)]
    many = await world.probers["web"].probe_all([*specs, *others])
    found["many"] = [sorted({str(each["status"]) for each in part}) for part in (many[:64], many[64:])]
    with netlink.open_in(world.wiring.nodes[1], netlink.NETLINK_NETFILTER) as sock:
        nfnetlink.load(sock, nfnetlink.delete("policy"))
    # A request may still be handed to a connection that was begun before, and then fails with it.
    begin = time.perf_counter()
    while (again := await world.told("web", world.vip("api"), 80)).startswith("503") and time.perf_counter() < begin + TIMEOUT:
        pass
    found["after"], found["lingered"] = again, time.perf_counter() - begin
    return found


async def watches(given: dict[str, Any]) -> Any:
    """Count what a machine allows a user few of."""
    world = World(given=given)
    await world.start()
    links = [os.readlink(entry.path) for entry in os.scandir(f"/proc/{world.envoy.pid}/fd")]
    return {"meshed": len(world.paths), "inotify": links.count("anon_inode:inotify"), "descriptors": len(links)}


def main() -> None:
    """Enter a sandbox, run the scene that is named, and print what it returns."""
    scene: Callable[..., Awaitable[Any]] = globals()[sys.argv[1]]
    made = json.load(sys.stdin)
    sandbox.enter()
    raise_limit()
    json.dump(asyncio.run(scene(made, *sys.argv[2:])), sys.stdout)  # type: ignore[arg-type]  # every scene is a coroutine function


if __name__ == "__main__":
    main()
