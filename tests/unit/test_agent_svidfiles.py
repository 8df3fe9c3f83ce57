# SPDX-License-Identifier: Apache-2.0
"""A probe shows the SVID that lies in its pod's files when it is sent; an expired one only once it has expired."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ztconform.agent import svidfiles
from ztconform.agent.spec import SpecError, Tls, read_spec
from ztconform.agent.tls import client_context
from ztconform.mesh.svid import Authority, Svid

ID = "spiffe://cluster.local/ns/shop/sa/attacker"
AUTHORITY = Authority("cluster.local")


def left(folder: Path, svid: Svid) -> str:
    (folder / svidfiles.CHAIN).write_text(svid.chain_pem)
    (folder / svidfiles.KEY).write_text(svid.key_pem)
    return str(folder)


def test_the_certificate_that_is_there_now_is_shown(tmp_path: Path) -> None:
    for svid in (AUTHORITY.issue(ID), AUTHORITY.issue(ID)):
        assert (svid.chain_pem, svid.key_pem) == svidfiles.held(left(tmp_path, svid))


def test_an_outlived_certificate_is_the_first_that_was_seen_although_a_new_one_is_there(tmp_path: Path) -> None:
    expired = AUTHORITY.forge("expired", ID)
    assert (expired.chain_pem, expired.key_pem) == svidfiles.outlived(left(tmp_path, expired))
    assert (expired.chain_pem, expired.key_pem) == svidfiles.outlived(left(tmp_path, AUTHORITY.issue(ID)))


def test_a_certificate_that_has_not_expired_yet_is_not_shown_as_one_that_has(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expires in (5[5-9]|6[01]) s"):
        svidfiles.outlived(left(tmp_path, AUTHORITY.issue(ID, 60)))


def test_the_expiry_is_the_leafs_and_not_its_issuers() -> None:
    svid = AUTHORITY.issue(ID, 3600)
    assert svid.not_after == svidfiles.expiry(svid.chain_pem + AUTHORITY.bundle_pem)
    assert timedelta(days=365) < svidfiles.expiry(AUTHORITY.bundle_pem) - datetime.now(UTC)


def test_what_is_no_certificate_has_no_expiry() -> None:
    nothing = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"
    with pytest.raises(ValueError, match="no certificate"):
        svidfiles.expiry(nothing)


def test_a_folder_without_files_is_told_and_not_taken_for_no_certificate(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        client_context(Tls(folder=str(tmp_path)))


@pytest.mark.parametrize(
    "tls",
    [{"folder": 1}, {"folder": "/a", "chain": "x", "key": "y"}, {"outlived": True}, {"folder": "/a", "outlived": "yes"}],
)
def test_a_folder_stands_in_place_of_a_certificate(tls: dict[str, object]) -> None:
    with pytest.raises(SpecError):
        read_spec({"kind": "http", "port": 80, "address": "10.0.0.1", "tls": tls})
