# SPDX-License-Identifier: Apache-2.0
"""Which strings Kubernetes takes for names, labels and ports, by the rules of the API server's validation.

Each check refuses through the field it was given; where the field stands is `fields`' business.
"""

import re

from ztconform.lab.fields import Field, shown

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_DNS_1035_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_DNS_SUBDOMAIN = re.compile(rf"{_DNS_LABEL.pattern}(\.{_DNS_LABEL.pattern})*")
_LABEL_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")

_LABEL_RULE = "A-Z, a-z, 0-9, '-', '_' and '.', a letter or digit at both ends"
_LABEL_MAX = 63
_SUBDOMAIN_MAX = 253
_PORT_NAME_MAX = 15
_ANNOTATIONS_MAX = 256 * 1024  # bytes of all keys and values together


def _fits(pattern: re.Pattern[str], text: str, limit: int) -> bool:
    return len(text) <= limit and pattern.fullmatch(text) is not None


def is_label_key(text: str) -> bool:
    """Return whether a label may have this key: a name, or a DNS subdomain, a slash and a name."""
    prefix, slash, name = text.rpartition("/")
    return _fits(_LABEL_NAME, name, _LABEL_MAX) and (not slash or _fits(_DNS_SUBDOMAIN, prefix, _SUBDOMAIN_MAX))


def is_label_value(text: str) -> bool:
    """Return whether a label may have this value; the empty string is one."""
    return not text or _fits(_LABEL_NAME, text, _LABEL_MAX)


def dns_label(field: Field) -> str:
    """Return a DNS label (RFC 1123), as a namespace's name is."""
    text = field.string()
    if not _fits(_DNS_LABEL, text, _LABEL_MAX):
        field.refuse(f"{shown(text)} is no DNS label: at most 63 of a-z, 0-9 and '-', the first and the last no '-'")
    return text


def dns_1035_label(field: Field) -> str:
    """Return a DNS label that begins with a letter (RFC 1035), as a Service's name is."""
    text = field.string()
    if not _fits(_DNS_1035_LABEL, text, _LABEL_MAX):
        field.refuse(f"{shown(text)} is no Service name: at most 63 of a-z, 0-9 and '-', the first a letter, the last no '-'")
    return text


def dns_subdomain(field: Field) -> str:
    """Return a DNS subdomain (RFC 1123), as most objects' names are."""
    text = field.string()
    if not _fits(_DNS_SUBDOMAIN, text, _SUBDOMAIN_MAX):
        field.refuse(f"{shown(text)} is no DNS subdomain: at most 253 of a-z, 0-9, '-' and '.', no '-' beside a '.' or at an end")
    return text


def label_key(field: Field) -> str:
    """Return a label's key."""
    text = field.string()
    if not is_label_key(text):
        field.refuse(f"{shown(text)} is no label key: at most 63 of {_LABEL_RULE}, behind a DNS subdomain and '/' if any")
    return text


def label_value(field: Field) -> str:
    """Return a label's value."""
    if field.value is None:
        field.refuse('must not be null: write "" or remove the label')
    text = field.string()
    if not is_label_value(text):
        field.refuse(f"{shown(text)} is no label value: at most 63 of {_LABEL_RULE}")
    return text


def label_map(field: Field) -> dict[str, str]:
    """Return a mapping of label keys to label values."""
    found: dict[str, str] = {}
    for key, entry in field.entries().items():
        label_key(Field(entry.title, entry.path, key))
        found[key] = label_value(entry)
    return found


def check_annotations(field: Field) -> None:
    """Refuse annotations that the API server would refuse."""
    total = 0
    for key, entry in field.entries().items():
        if not is_label_key(key.lower()):
            entry.refuse("the key is no annotation key: it must have the form of a label key")
        total += len(key.encode(errors="replace")) + len(entry.string().encode(errors="replace"))
    if total > _ANNOTATIONS_MAX:
        field.refuse("must not hold more than 256 KiB")


def port_number(field: Field) -> int:
    """Return a port number."""
    number = field.integer()
    if not 1 <= number <= 65535:
        field.refuse(f"must be from 1 to 65535, not {shown(number)}")
    return number


def port_name(field: Field) -> str:
    """Return a container port's name (IANA service name in lower case)."""
    text = field.string()
    if not _fits(_PORT_NAME, text, _PORT_NAME_MAX):
        field.refuse(f"{shown(text)} is no port name: at most 15 of a-z, 0-9 and single inner '-', with a letter among them")
    return text


def port_reference(field: Field) -> int | str:
    """Return a port's number, or the name it has in a pod."""
    if isinstance(field.value, str):
        return port_name(field)
    if not isinstance(field.value, int) or isinstance(field.value, bool):
        field.refuse(f"must be a port's number or name, not {shown(field.value)}")
    return port_number(field)
