"""Templates whose values cannot leave their place: every value passes the filter for its syntax, or rendering stops."""

import ipaddress
import re
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

from settings.base import EMAIL

GENERATED = "made by ollama-fortress; a change here is lost with the next `make up`"


class NotInItsPlace(ValueError):
    """A value that would mean something else in the generated file. Its text is not quoted: it may be a secret."""


def _only(pattern: str, what: str):
    compiled = re.compile(pattern)

    def check(value: Any) -> str:
        text = str(value)
        if not compiled.fullmatch(text):
            raise NotInItsPlace(f"a value is not {what}, and would break out of its place in a generated file")
        return text

    return check


def _zoneless(value: Any) -> str:
    """Python keeps any text after an IPv6 address's `%`, line ends included."""
    text = str(value)
    if "%" in text:
        raise NotInItsPlace("an address has a zone, and would break out of its place in a generated file")
    return text


def _address(value: Any) -> str:
    return str(ipaddress.ip_address(_zoneless(value)))


def _network(value: Any) -> str:
    return str(ipaddress.ip_network(_zoneless(value)))


def _bracketed(value: Any) -> str:
    """An address as URLs and nginx write it: IPv6 in brackets."""
    address = ipaddress.ip_address(_zoneless(value))
    return f"[{address}]" if address.version == 6 else str(address)


def _escaped(value: Any) -> str:
    """For double quotes of YAML, where a backslash and a quote have one before them."""
    return _only(r"[\x20-\x7e]*", "visible text")(value).replace("\\", "\\\\").replace('"', '\\"')


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise NotInItsPlace("a value is not a number")
    return str(value)


def _integer(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int):
        raise NotInItsPlace("a value is not a whole number")
    return str(value)


def _ports(value: Any) -> str:
    """One port, or a set of them as nftables writes it."""
    numbers = [_number(each) for each in value]
    if not numbers:
        raise NotInItsPlace("a list of ports is empty")
    return numbers[0] if len(numbers) == 1 else f"{{ {', '.join(numbers)} }}"


FILTERS = {
    "address": _address,
    "network": _network,
    "bracketed": _bracketed,
    "number": _number,
    "integer": _integer,
    "ports": _ports,
    "domain": _only(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", "a domain name"),
    "path": _only(r"/[A-Za-z0-9/._-]*", "a plain path"),
    "name": _only(r"[A-Za-z0-9._-]{1,64}", "a plain name"),
    "mediatype": _only(r"[a-z]+/[a-z+]+", "a media type"),
    "methods": _only(r"[A-Z]+( [A-Z]+)*", "a list of methods"),
    "endpoint": _only(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}", "host:port"),
    "host": _only(r"(\[[0-9a-f:]+\]|[a-z0-9.-]+)(:[0-9]{1,5})?", "a host with or without a port"),
    "wgkey": _only(r"[A-Za-z0-9+/]{43}=", "a WireGuard key"),
    "clientid": _only(r"[A-Za-z0-9._:/@-]{1,255}", "a client id"),
    "email": _only(EMAIL, "an e-mail address in lower case"),
    "escaped": _escaped,
    "visible": _only(r"[\x20\x21\x23-\x5b\x5d-\x7e]*", "text that may stand between double quotes"),
    "words": _only(r"[a-z:]+( [a-z:]+)*", "plain words"),
    "url": _only(r"https://[A-Za-z0-9.:\[\]/_~-]+", "an https address without a query"),
    "hex": _only(r"[0-9a-f]{64}", "64 hex digits"),
}

_ENVIRONMENT = Environment(
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,  # noqa: S701 - no HTML here; the filters above are stricter than escaping
)
_ENVIRONMENT.filters.update(FILTERS)


def template(text: str) -> Template:
    """A template in which every {{ value }} ends in one of FILTERS; `{{ generated }}` says what made the file.

    Raises: ValueError where a value is printed without a filter.
    """
    text = text.replace("{{ generated }}", GENERATED)
    for expression in re.findall(r"\{\{(.*?)\}\}", text, re.DOTALL):
        if expression.rpartition("|")[2].strip() not in FILTERS:
            raise ValueError(f"{{{{{expression}}}}} has no filter that keeps it in its place")
    return _ENVIRONMENT.from_string(text)
