# SPDX-License-Identifier: Apache-2.0
"""An existing cluster: who is let in, what is permitted, which runs live, and what a killed one left."""

import base64
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from kube_clusters import Ready

from ztconform.errors import ClusterError, UsageError

pytest.importorskip("kubernetes")

from kubernetes.client.exceptions import ApiException

from ztconform.kube import access, calls, lease, sweep
from ztconform.kube.client import Connection, connect
from ztconform.kube.exclusive import Exclusive
from ztconform.kube.labels import MANAGED, MANAGER, Labels
from ztconform.kube.lease import RunLease

PREFIX = "ztconform.io"
NAMESPACES = "/api/v1/namespaces"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
Swept = Callable[..., tuple[int, list[str], str]]


@dataclass(frozen=True, slots=True)
class Access:
    """Hold how the cluster under test is reached by its administrator."""

    kubeconfig: Path
    context: str

    def kubeconfig_of(self, folder: Path, user: Mapping[str, Any], **cluster: Any) -> Path:
        """Return a kubeconfig in which another user, or another server, stands behind the same context."""
        found = yaml.safe_load(self.kubeconfig.read_text(encoding="utf-8"))
        context = next(known["context"] for known in found["contexts"] if known["name"] == self.context)
        server = next(known["cluster"] for known in found["clusters"] if known["name"] == context["cluster"])
        server = {key: value for key, value in {**server, **cluster}.items() if value is not None}
        made = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": self.context,
            "clusters": [{"name": "c", "cluster": server}],
            "users": [{"name": "u", "user": dict(user)}],
            "contexts": [{"name": self.context, "context": {"cluster": "c", "user": "u"}}],
        }
        path = folder / "kubeconfig"
        path.write_text(yaml.safe_dump(made), encoding="utf-8")
        return path


@pytest.fixture(scope="module")
def admin(cilium: Ready) -> Access:
    return Access(cilium.kubeconfig, cilium.context)


@pytest.fixture(scope="module")
def connection(admin: Access) -> Connection:
    return connect(admin.context, admin.kubeconfig)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renew Leases every half second."""
    monkeypatch.setattr(lease, "_EVERY", 0.5)
    monkeypatch.setattr(lease, "_AGAIN", 0.5)
    monkeypatch.setattr(lease, "_CALL", 2.0)


@pytest.fixture
def swept(admin: Access) -> Swept:
    """Return a function that runs `ztconform sweep` on the cluster and returns its code, its lines and its errors."""

    def swept(*args: str) -> tuple[int, list[str], str]:
        command = [
            sys.executable,
            "-m",
            "ztconform.cli",
            "sweep",
            f"--context={admin.context}",
            f"--kubeconfig={admin.kubeconfig}",
        ]
        done = subprocess.run([*command, *args], capture_output=True, text=True, timeout=240, check=False)
        return done.returncode, done.stdout.splitlines(), done.stderr

    return swept


def new_run() -> str:
    return f"t{secrets.token_hex(4)}"


def ask(connection: Connection, method: str, path: str, **named: Any) -> Mapping[str, Any]:
    return calls.safely(lambda: calls.ask(connection.api(), method, path, **named)).body


def made_namespace(connection: Connection, cleared: list[str], name: str, labels: Mapping[str, str]) -> str:
    cleared.append(f"{NAMESPACES}/{name}")
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": dict(labels)}}
    return str(ask(connection, "POST", NAMESPACES, body=body)["metadata"]["name"])


def exists(connection: Connection, path: str) -> bool:
    try:
        return "deletionTimestamp" not in ask(connection, "GET", path)["metadata"]
    except ApiException as error:
        assert 404 == error.status
        return False


def eventually(what: Callable[[], bool], seconds: float = 15.0) -> bool:
    end = time.monotonic() + seconds
    while not (seen := what()) and time.monotonic() < end:
        time.sleep(0.2)
    return seen


@pytest.fixture
def cleared(connection: Connection) -> Iterator[list[str]]:
    """Return a list that takes the paths of what must not outlive the test, however it ends."""
    paths: list[str] = []
    yield paths
    for path in reversed(paths):
        with suppress(ApiException):  # most are gone by now
            ask(connection, "DELETE", path)


@pytest.fixture
def foreign(connection: Connection, cleared: list[str]) -> str:
    """Return a namespace that is none of ours."""
    return made_namespace(connection, cleared, f"foreign-{secrets.token_hex(4)}", {})


# Who is let in


def test_an_unknown_context_names_those_that_there_are(admin: Access) -> None:
    with pytest.raises(UsageError, match=rf"nowhere.* has no such context; it has .*{admin.context}"):
        connect("nowhere", admin.kubeconfig)


@pytest.mark.parametrize("listening", [True, False], ids=["silent", "refused"])
def test_a_server_that_does_not_answer_is_told_within_five_seconds(admin: Access, tmp_path: Path, listening: bool) -> None:
    with closing(socket.socket()) as silent:
        silent.bind(("127.0.0.1", 0))
        if listening:
            silent.listen()
        there = f"https://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(ClusterError, match=r"the API server does not answer .*; is the cluster up") as raised:
            connect(admin.context, admin.kubeconfig_of(tmp_path, {"token": "x"}, server=there))
    assert 5 > time.monotonic() - began
    assert 1 == len(str(raised.value).splitlines())


def client_certificate(authority_key: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    """Return a user whose certificate no cluster knows the authority of."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kubernetes-admin")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .sign(authority_key, hashes.SHA256())
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = certificate.public_bytes(serialization.Encoding.PEM)
    return {
        "client-certificate-data": base64.b64encode(public).decode(),
        "client-key-data": base64.b64encode(private).decode(),
    }


@pytest.mark.parametrize(
    "user",
    [{"token": "expired"}, client_certificate(ec.generate_private_key(ec.SECP256R1()))],
    ids=["token", "certificate"],
)
def test_credentials_that_the_cluster_does_not_know_are_one_line(admin: Access, tmp_path: Path, user: dict[str, str]) -> None:
    with pytest.raises(ClusterError, match=r"does not know these credentials .*; log in again") as raised:
        connect(admin.context, admin.kubeconfig_of(tmp_path, user))
    assert 1 == len(str(raised.value).splitlines())


# What is permitted


@pytest.fixture
def newcomer(admin: Access, connection: Connection, foreign: str, tmp_path: Path) -> Connection:
    """Return the connection of an account that may do nothing."""
    accounts = f"{NAMESPACES}/{foreign}/serviceaccounts"
    ask(connection, "POST", accounts, body={"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "newcomer"}})
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    token = ask(connection, "POST", f"{accounts}/newcomer/token", body=request)["status"]["token"]
    return connect(admin.context, admin.kubeconfig_of(tmp_path, {"token": token}))


@pytest.fixture
def granted(connection: Connection) -> Iterator[Callable[[str], None]]:
    """Return a function that applies what `report` printed; it is taken back."""
    paths: list[str] = []
    name = f"ztconform-{secrets.token_hex(4)}"

    def grant(text: str) -> None:
        for document in yaml.safe_load_all(text):
            document["metadata"]["name"] = name  # the cluster may have ours already
            collection = f"{RBAC}/{document['kind'].lower()}s"
            if "roleRef" in document:
                document["roleRef"]["name"] = name
            ask(connection, "POST", collection, body=document)
            paths.append(f"{collection}/{name}")

    yield grant
    for path in paths:
        ask(connection, "DELETE", path)


def test_what_is_not_permitted_is_told_with_the_role_that_permits_it_and_no_more(
    newcomer: Connection, granted: Callable[[str], None]
) -> None:
    with pytest.raises(
        ClusterError, match=r"not permitted: namespaces \(create .*pods/exec \(create get\).*ztconform doctor"
    ) as told:
        access.check(newcomer)
    assert 1 == len(str(told.value).splitlines())
    report = access.report(newcomer)
    assert "#   pods/exec: create, get\n" in report
    granted(report)
    assert eventually(lambda: not access.missing(newcomer, access.needs(newcomer)))
    access.check(newcomer)
    assert "all that a run needs is permitted" in access.report(newcomer)
    with pytest.raises(ApiException, match="403"):
        ask(newcomer, "GET", "/api/v1/secrets")


def test_the_role_suffices_to_say_that_a_run_lives_and_to_sweep_it(
    newcomer: Connection, connection: Connection, granted: Callable[[str], None], cleared: list[str]
) -> None:
    granted(access.report(newcomer))
    assert eventually(lambda: not access.missing(newcomer, access.needs(newcomer)))
    run = new_run()
    with RunLease(newcomer, Labels(PREFIX, new_run())):
        shop = made_namespace(newcomer, cleared, f"shop-{run}", Labels(PREFIX, run).ours())
        stale_lease(newcomer, cleared, run)
        dead = [one for one in sweep.leftovers(newcomer, PREFIX).dead if one.id == run]
        sweep.remove(newcomer, dead, PREFIX, lambda line: None)
        assert not exists(connection, f"{NAMESPACES}/{shop}")


def test_one_verb_too_few_is_named(newcomer: Connection, granted: Callable[[str], None]) -> None:
    role, binding = yaml.safe_load_all(access.report(newcomer))
    rule = next(rule for rule in role["rules"] if "pods/exec" in rule["resources"])
    rule["verbs"].remove("create")
    granted(yaml.safe_dump_all([role, binding]))
    few = [access.Need(group="", resource="pods/exec", verbs=("create",))]
    assert eventually(lambda: few == access.missing(newcomer, access.needs(newcomer)))


# Which runs live


class Outage:
    """Stand between a client and the API server, and let nothing through while it is down."""

    def __init__(self, host: str, port: int) -> None:
        self.there = (host, port)
        self.down = False
        self._pairs: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.down:
                client.close()
                continue
            server = socket.create_connection(self.there)
            self._pairs += [client, server]
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self._copy, args=(source, target), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass
        target.close()

    def begin(self) -> None:
        self.down = True
        for one in self._pairs:
            one.close()

    def close(self) -> None:
        self._listener.close()
        self.begin()


@pytest.fixture
def outage(connection: Connection) -> Iterator[tuple[Connection, Outage]]:
    """Return a connection that can be cut."""
    host, _, port = connection.configuration.host.removeprefix("https://").partition(":")
    with closing(Outage(host, int(port.partition("/")[0] or 443))) as between:
        configuration = copy(connection.configuration)
        configuration.host = f"https://127.0.0.1:{between.port}"
        configuration.tls_server_name = configuration.tls_server_name or host
        yield Connection(connection.context, configuration), between


def renewed(connection: Connection, held: RunLease) -> str:
    return str(ask(connection, "GET", f"{lease.LEASES}/{held.name}")["spec"]["renewTime"])


@pytest.mark.usefixtures("quick")
def test_a_run_renews_its_lease_through_an_outage_of_the_api_server(
    outage: tuple[Connection, Outage], connection: Connection
) -> None:
    through, between = outage
    with RunLease(through, Labels(PREFIX, new_run(), "gw0")) as held:
        first = renewed(connection, held)
        assert eventually(lambda: renewed(connection, held) > first)
        between.begin()
        time.sleep(3)
        during = renewed(connection, held)
        between.down = False
        assert eventually(lambda: renewed(connection, held) > during)
        assert "" == held.lost
    assert not exists(connection, f"{lease.LEASES}/{held.name}")


@pytest.mark.usefixtures("quick")
def test_a_run_learns_that_it_was_swept(connection: Connection) -> None:
    with RunLease(connection, Labels(PREFIX, new_run())) as held:
        assert "" == held.lost
        ask(connection, "DELETE", f"{lease.LEASES}/{held.name}")
        assert eventually(lambda: bool(held.lost))
        assert f"the Lease {held.name} was taken away" == held.lost


@pytest.mark.parametrize("off", [timedelta(hours=-2), timedelta(hours=2)], ids=["slow", "fast"])
def test_times_are_the_api_servers_even_where_our_clock_is_wrong(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, off: timedelta
) -> None:
    class Wrong(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + off

    with RunLease(connection, Labels(PREFIX, new_run())):  # in whose namespace the other one comes
        with monkeypatch.context() as wrong:
            wrong.setattr(lease, "datetime", Wrong)
            held = RunLease(connection, Labels(PREFIX, new_run()))
            held.open()
        seen = {run.id: run.silent for run in sweep.leftovers(connection, PREFIX).living}
        monkeypatch.setattr(lease, "datetime", Wrong)
        seen_wrongly = {run.id: run.silent for run in sweep.leftovers(connection, PREFIX).living}
        held.close()
    assert seen[held.holder] == pytest.approx(0, abs=20)
    assert seen_wrongly[held.holder] == pytest.approx(0, abs=20)


def test_runs_that_come_and_go_at_once_never_lose_a_lease_and_leave_no_namespace(connection: Connection) -> None:
    wrong: list[str] = []

    def come_and_go() -> None:
        for _ in range(3):
            try:
                with RunLease(connection, Labels(PREFIX, new_run())) as held:
                    time.sleep(secrets.randbelow(100) / 1000)
                    if not exists(connection, f"{lease.LEASES}/{held.name}") or not exists(
                        connection, f"{NAMESPACES}/{lease.NAMESPACE}"
                    ):
                        wrong.append(f"{held.name} is gone")
            except Exception as error:
                wrong.append(repr(error))

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [] == wrong
    if not ask(connection, "GET", lease.LEASES).get("items"):  # no run of other tests
        assert eventually(lambda: not exists(connection, f"{NAMESPACES}/{lease.NAMESPACE}"))


def test_the_namespace_is_not_taken_from_under_a_run_that_came_after_the_last_look(connection: Connection) -> None:
    if not exists(connection, f"{NAMESPACES}/{lease.NAMESPACE}"):
        assert eventually(lambda: _is_made(connection))
    looked = ask(connection, "GET", f"{NAMESPACES}/{lease.NAMESPACE}")["metadata"]
    with RunLease(connection, Labels(PREFIX, new_run())) as held:
        path, version = f"{NAMESPACES}/{lease.NAMESPACE}", looked["resourceVersion"]
        assert not calls.delete(connection.api(), path, uid=looked["uid"], version=version)
        assert exists(connection, f"{lease.LEASES}/{held.name}")


def _is_made(connection: Connection) -> bool:
    """Make the namespace of the Leases, unless the one before is still going."""
    try:
        made_namespace(connection, [], lease.NAMESPACE, {MANAGED: MANAGER})
    except ApiException as error:
        assert 409 == error.status
        return False
    return True


def test_cluster_scoped_work_is_done_by_one_run_at_a_time(connection: Connection) -> None:
    one, two = (RunLease(connection, Labels(PREFIX, new_run())) for _ in range(2))
    with one, two:
        first, second = Exclusive(one), Exclusive(two)
        assert "" == first.acquire(30)
        assert "" == first.lost
        with pytest.raises(ClusterError, match=f"being done by the run {one.holder} "):
            second.acquire(2)
        assert second.lost
        first.release()
        assert "" == second.acquire(5)
        second.release()


def test_the_lease_for_cluster_scoped_work_is_taken_over_from_the_dead(connection: Connection, cleared: list[str]) -> None:
    with RunLease(connection, Labels(PREFIX, new_run())) as held:
        run = new_run()
        stale_lease(connection, cleared, run, name="ztconform-exclusive")
        work = Exclusive(held)
        assert run == work.acquire(10)
        work.release()


# What a killed run left


def stale_lease(connection: Connection, cleared: list[str], run: str, name: str = "") -> str:
    """Make a Lease that was renewed two minutes ago."""
    cleared.append(f"{lease.LEASES}/{name or f'ztconform-run-{run}'}")
    then = datetime.now(UTC) - timedelta(minutes=2)
    body = lease.manifest(name or f"ztconform-run-{run}", run, Labels(PREFIX, run), then)
    return str(ask(connection, "POST", lease.LEASES, body=body)["metadata"]["name"])


KILLED = f"""\
import sys, time
from pathlib import Path
from ztconform.kube import calls
from ztconform.kube.client import connect
from ztconform.kube.labels import Labels
from ztconform.kube.lease import RunLease
context, kubeconfig, run, foreign = sys.argv[1:]
connection = connect(context, Path(kubeconfig))
labels = Labels({PREFIX!r}, run)
RunLease(connection, labels).open()
for name in ("shop", "bank"):
    metadata = {{"name": f"{{name}}-{{run}}", "labels": dict(labels.ours())}}
    body = {{"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}}
    calls.ask(connection.api(), "POST", "/api/v1/namespaces", body=body)
metadata = {{"name": run, "labels": dict(labels.ours())}}
policy = {{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": {{"podSelector": {{}}}}}}
calls.ask(connection.api(), "POST", f"/apis/networking.k8s.io/v1/namespaces/{{foreign}}/networkpolicies", body=policy)
print("ready", flush=True)
time.sleep(600)
"""


def test_a_killed_run_is_swept_after_a_minute_and_nothing_else(
    admin: Access, connection: Connection, foreign: str, swept: Swept, cleared: list[str]
) -> None:
    run, living = new_run(), RunLease(connection, Labels(PREFIX, new_run()))
    policies = f"/apis/networking.k8s.io/v1/namespaces/{foreign}/networkpolicies"
    cleared += [f"{NAMESPACES}/shop-{run}", f"{NAMESPACES}/bank-{run}", f"{lease.LEASES}/ztconform-run-{run}"]
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, admin.context, str(admin.kubeconfig), run, foreign], stdout=subprocess.PIPE, text=True
    )
    with living, child:
        mine = made_namespace(connection, cleared, f"mine-{living.holder}", living.labels.ours())
        half = made_namespace(connection, cleared, f"half-{run}", {MANAGED: MANAGER})  # as another tool of that name might
        assert child.stdout is not None
        assert "ready\n" == child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        code, lines, _ = swept()
        assert 0 == code
        assert [line for line in lines if f"the run {run} gave a sign of life" in line]
        assert exists(connection, f"{NAMESPACES}/shop-{run}")

        time.sleep(max(0.0, killed + lease.DURATION + 3 - time.monotonic()))
        things = [
            f"namespace bank-{run}",
            f"namespace shop-{run}",
            f"NetworkPolicy {foreign}/{run}",
            f"Lease ztconform-run-{run}",
        ]
        code, lines, _ = swept("--dry-run")
        about = sorted(line for line in lines if run in line)
        assert (0, len(things)) == (code, len(about))
        assert all(any(line.startswith(f"would remove {thing} of the run {run}") for line in about) for thing in things)
        assert exists(connection, f"{NAMESPACES}/shop-{run}")

        code, lines, _ = swept()
        assert (0, sorted(f"removed {thing} of the run {run}" for thing in things)) == (
            code,
            sorted(x for x in lines if run in x),
        )
        for gone in (f"{NAMESPACES}/shop-{run}", f"{NAMESPACES}/bank-{run}", f"{policies}/{run}"):
            assert not exists(connection, gone)
        for left in (mine, half, foreign):
            assert exists(connection, f"{NAMESPACES}/{left}")
        assert "" == living.lost


def test_what_has_taken_the_name_of_a_thing_stays(connection: Connection, foreign: str, cleared: list[str]) -> None:
    run, said = new_run(), []
    policies = f"/apis/networking.k8s.io/v1/namespaces/{foreign}/networkpolicies"
    body = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "spec": {"podSelector": {}}}
    with RunLease(connection, Labels(PREFIX, new_run())):
        ask(connection, "POST", policies, body={**body, "metadata": {"name": "p", "labels": dict(Labels(PREFIX, run).ours())}})
        stale_lease(connection, cleared, run)
        dead = [one for one in sweep.leftovers(connection, PREFIX).dead if one.id == run]
        ask(connection, "DELETE", f"{policies}/p")
        ask(connection, "POST", policies, body={**body, "metadata": {"name": "p"}})
        sweep.remove(connection, dead, PREFIX, said.append)
        assert exists(connection, f"{policies}/p")


def test_a_run_that_comes_back_to_life_before_it_is_swept_is_left_alone(connection: Connection, cleared: list[str]) -> None:
    run, said = new_run(), []
    with RunLease(connection, Labels(PREFIX, new_run())):
        shop = made_namespace(connection, cleared, f"shop-{run}", Labels(PREFIX, run).ours())
        path = f"{lease.LEASES}/{stale_lease(connection, cleared, run)}"
        dead = [one for one in sweep.leftovers(connection, PREFIX).dead if one.id == run]
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        ask(connection, "PATCH", path, body={"spec": {"renewTime": now}}, content=calls.MERGE_PATCH)
        sweep.remove(connection, dead, PREFIX, said.append)
        assert [f"the run {run} lives after all: left alone"] == said
        assert exists(connection, f"{NAMESPACES}/{shop}")
        assert exists(connection, path)


def test_a_namespace_that_does_not_go_is_named_with_its_reason(connection: Connection, cleared: list[str]) -> None:
    run = new_run()
    with RunLease(connection, Labels(PREFIX, new_run())):
        stale_lease(connection, cleared, run)
        shop = made_namespace(connection, cleared, f"shop-{run}", Labels(PREFIX, run).ours())
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "stuck", "finalizers": ["example.org/never"]}}
        ask(connection, "POST", f"{NAMESPACES}/{shop}/configmaps", body=body)
        dead = [one for one in sweep.leftovers(connection, PREFIX).dead if one.id == run]
        try:
            with pytest.raises(ClusterError, match=f"namespace {shop} of the run {run} .*example.org/never"):
                sweep.remove(connection, dead, PREFIX, lambda line: None, seconds=8)
        finally:
            change = {"metadata": {"finalizers": None}}
            ask(connection, "PATCH", f"{NAMESPACES}/{shop}/configmaps/stuck", body=change, content=calls.MERGE_PATCH)
        assert eventually(lambda: run not in [one.id for one in sweep.leftovers(connection, PREFIX).dead])
