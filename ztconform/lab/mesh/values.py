# SPDX-License-Identifier: Apache-2.0
"""Which strings Istio takes as values in a rule: accounts, trust domains, addresses, ports and paths.

Each check refuses through the field it was given, and returns the value in the form in which it is compared; wildcards are
left to `conditions`.
"""

import ipaddress
import re

from ztconform.lab.fields import Field, shown

_ACCOUNT_MAX = 320
_ADDRESS = re.compile(r"[0-9A-Fa-f:.]+(/(0|[1-9][0-9]{0,2}))?")  # leaves out what ipaddress takes beside: a netmask, a zone
_DIGITS = re.compile(r"[0-9]{1,9}")
_SEGMENT = re.compile(r"[A-Za-z0-9._~%!$&'()+,;:@=-]+")
_TEMPLATE_MAX = 256  # of Envoy's UriTemplateMatchConfig, after {*} and {**} have become * and **


def text(field: Field) -> str:
    """Return a string that is not empty."""
    value = field.string()
    if not value:
        field.refuse("must not be empty")
    return value


def service_account(field: Field) -> str:
    """Return NAME or NAMESPACE/NAME; a wildcard is refused."""
    value = text(field)
    if len(value) > _ACCOUNT_MAX:
        field.refuse(f"must not have more than {_ACCOUNT_MAX} characters")
    if "*" in value:
        field.refuse(f"{shown(value)} must not have a wildcard")
    parts = value.split("/")
    if len(parts) > 2 or not all(parts):
        field.refuse(f"{shown(value)} must be a service account's NAME or NAMESPACE/NAME")
    return value


def trust_domain(field: Field) -> str:
    """Return a trust domain, which may have one wildcard at one end."""
    value = text(field)
    if "/" in value:
        field.refuse(f"{shown(value)} must be a trust domain alone, without '/'")
    if "*" in value[1:-1] or value.count("*") > 1:
        field.refuse(f"{shown(value)} must not have more than one '*', and that at an end")
    return value


def address_block(field: Field) -> str:
    """Return an address or CIDR as a CIDR, its host bits cleared."""
    value = text(field)
    try:
        if not _ADDRESS.fullmatch(value):
            raise ValueError
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        field.refuse(f"{shown(value)} is no address or CIDR such as 10.9.8.7 or 2001:db8::/64, without leading zeros")
    address = ipaddress.ip_address(value.partition("/")[0])
    if address.version == 6 and address.ipv4_mapped:
        field.refuse(f"{shown(value)} must not be an IPv4-mapped IPv6 address: write it as IPv4")
    return str(network)


def port(field: Field) -> str:
    """Return a port's number, which stands in quotes."""
    value = text(field)
    if not _DIGITS.fullmatch(value) or int(value) > 65535:
        field.refuse(f"must be a number up to 65535 in quotes, not {shown(value)}")
    return str(int(value))


def is_template(path: str) -> bool:
    """Return whether a path is matched segment by segment."""
    return "{*}" in path or "{**}" in path


def path(field: Field) -> str:
    """Return a path, or a path template with {*} for one segment and at last {**} for any number.

    Istio lets templates pass that begin with no '/' or have more than one at the end; Envoy 1.40 does not survive those.
    """
    value = text(field)
    if not is_template(value):
        if "{" in value or "}" in value:
            field.refuse(f"{shown(value)} must not have braces other than those of {{*}} and {{**}}")
        return value
    if not value.startswith("/"):
        field.refuse(f"{shown(value)} must begin with '/', as every path template")
    segments = value.removesuffix("/").split("/")[1:]
    operators = [segment for segment in segments if segment in ("{*}", "{**}")]
    if "{**}" in operators[:-1]:
        field.refuse(f"{shown(value)} must not have {{*}} or {{**}} behind {{**}}")
    for segment in segments:
        if segment not in operators and not _SEGMENT.fullmatch(segment):
            field.refuse(f"{shown(value)} has the segment {shown(segment)}, which is neither {{*}}, nor {{**}}, nor a literal")
    if len(value.replace("{*}", "*").replace("{**}", "**")) > _TEMPLATE_MAX:
        field.refuse(f"must not have more than {_TEMPLATE_MAX} characters, as a path template")
    return value
