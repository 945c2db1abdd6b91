"""docs/routes.md says what the route table says."""

import json

from fortress import paths
from render import routes_table
from render.nginx import ROUTES
from tests.unit.conftest import Golden


def test_the_committed_table_is_golden_and_made_from_the_routes(golden: Golden) -> None:
    golden.check("routes.md", routes_table.markdown(), folder=paths.CHECKOUT / "docs")


def test_every_route_has_a_line_of_eight_cells() -> None:
    table = json.loads(ROUTES.read_text())
    lines = [line for line in routes_table.markdown().splitlines() if line.startswith("| `")]
    assert len(lines) == len(table["routes"])
    assert {line.count("|") for line in lines} == {9}
    never = [line for line in routes_table.markdown().splitlines() if line.startswith("- `")]
    assert {line.split("`")[1] for line in never} == set(table["never"])
