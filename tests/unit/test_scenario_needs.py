# SPDX-License-Identifier: Apache-2.0
"""Rows that a stack cannot play are left out by name, and with them those that are judged against them."""

import pytest

from ztconform import scenario
from ztconform.model import Row
from ztconform.rows import allowed, denied
from ztconform.shop import shop

SHOP = shop()
OWN = allowed(SHOP.attacker, "GET", SHOP.payment, past_proxy=True, cert="own")
FOREIGN = denied(SHOP.attacker, "GET", SHOP.payment, past_proxy=True, cert="foreign-ca", by="mtls", twin=OWN)
PLAIN = denied(SHOP.attacker, "GET", SHOP.payment, past_proxy=True, by="mtls")
TUNNELLED = allowed(SHOP.frontend, "GET", SHOP.payment.by("pod"), unless="plaintext-by-address")
BY_POD = denied(SHOP.frontend, "GET", SHOP.payment.by("pod"), by="mtls", needs="plaintext-by-address")
ALL = {"client-tls": "", "plaintext-by-address": ""}


def test_a_stack_with_all_features_plays_all_rows() -> None:
    rows = (OWN, FOREIGN, PLAIN, BY_POD)
    assert (rows, {}) == scenario.within(rows, ALL)


def test_a_row_that_shows_a_certificate_needs_a_stack_that_lets_it() -> None:
    kept, lacking = scenario.within((OWN, FOREIGN, PLAIN, BY_POD), {**ALL, "client-tls": "it is in memory"})
    assert ((PLAIN, BY_POD), {"client-tls": "it is in memory"}) == (kept, lacking)


def test_what_a_row_names_is_needed_besides() -> None:
    kept, lacking = scenario.within((PLAIN, BY_POD), {"client-tls": "", "plaintext-by-address": "always encrypted"})
    assert ((PLAIN,), {"plaintext-by-address": "always encrypted"}) == (kept, lacking)


def test_of_a_feature_that_a_stack_is_silent_about_nothing_is_played() -> None:
    kept, lacking = scenario.within((OWN, PLAIN), {})
    assert ((PLAIN,), {"client-tls"}) == (kept, lacking.keys())


def test_a_row_goes_with_its_twin() -> None:
    twin = denied(SHOP.legacy, "GET", SHOP.payment, by="mtls", twin=OWN)
    assert () == scenario.within((OWN, twin), {"client-tls": "it is in memory"})[0]


@pytest.mark.parametrize(("why", "played"), [("", BY_POD), ("always encrypted", TUNNELLED)])
def test_of_two_rows_that_exclude_each_other_one_is_played(why: str, played: Row) -> None:
    kept, _ = scenario.within((PLAIN, BY_POD, TUNNELLED), {"client-tls": "", "plaintext-by-address": why})
    assert (PLAIN, played) == kept
