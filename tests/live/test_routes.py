"""The route table knows every route that the deployed Ollama has: a new release adds some without a word."""

import json
import re

from render import nginx
from tests.deployment import Deployment, printed

TABLE = json.loads(nginx.ROUTES.read_text())
DEBUG_LINE = re.compile(r"^\[GIN-debug\] ([A-Z]+) +(\S+) +-->", re.MULTILINE)


def registered(fortress: Deployment) -> set[tuple[str, str]]:
    """(method, path) of what Ollama says that it serves, when it starts."""
    found = set(DEBUG_LINE.findall(printed(fortress.container("ollama"))))
    assert len(found) > 20, "this Ollama does not print its routes, so nothing is shown: it was not built by images/"
    return found


def known() -> set[tuple[str, str]]:
    parameter = {"model": ":model", "digest": ":digest"}
    return {
        (method, row["path"] + parameter.get(row.get("tail", ""), ""))
        for row in TABLE["routes"]
        if not row.get("own")
        for method in row["methods"]
    }


def pattern(path: str) -> str:
    """Ollama may call a parameter as it likes."""
    return re.sub(r":\w+", ":x", path)


def test_every_route_of_ollama_is_in_the_table(fortress: Deployment):
    open_ = {(method, pattern(path)) for method, path in known()}
    closed = {pattern(path) for path in TABLE["never"]}
    hidden = {row["path"] for row in TABLE["routes"] if row.get("hides")}
    for method, path in registered(fortress):
        assert (method, pattern(path)) in open_ or pattern(path) in closed | hidden, (
            f"Ollama serves {method} {path}, which gateway/routes.json does not know: read what it does, then add it "
            "to `routes`, or to `never`"
        )


def test_the_table_opens_nothing_that_ollama_does_not_have(fortress: Deployment):
    there = {(method, pattern(path)) for method, path in registered(fortress)}
    assert {(method, pattern(path)) for method, path in known()} <= there
