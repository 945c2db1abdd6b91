"""Dashboards: reviewed, the same each time, and nothing in them that Grafana's file provisioning drops."""

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from render import dashboards
from render.dashboards import Source, drawn
from render.dashboards.parts import Board
from tests.unit.conftest import Golden

FILES = dashboards.files()
METRICS = {
    # Ours: the gateway's and the tunnel's.
    *("fortress_requests_total", "fortress_refusals_total", "fortress_limits_hit_total"),
    *("fortress_auth_failures_total", "fortress_tokens_total", "fortress_first_token_seconds_bucket"),
    *("fortress_chunk_gap_seconds_bucket", "fortress_request_seconds_bucket", "fortress_queue_seconds_bucket"),
    *("fortress_queue_length", "fortress_slots", "fortress_slots_used", "fortress_streams"),
    *("fortress_budget_used_ratio", "fortress_audit_lines_total", "fortress_audit_lost_total"),
    *("fortress_ollama_up", "fortress_ollama_model_bytes", "fortress_certificate_expires_timestamp_seconds"),
    *("fortress_blocked", "fortress_tunnel_up", "fortress_peer_last_handshake_timestamp_seconds"),
    *("fortress_peer_received_bytes_total", "fortress_peer_sent_bytes_total"),
    *("fortress_peer_endpoint_changes_total", "fortress_tunnel_events_total"),
    # The GPU's, where there is one.
    *("fortress_gpu_used_ratio", "fortress_gpu_memory_used_bytes", "fortress_gpu_memory_total_bytes"),
    *("fortress_gpu_temperature_celsius", "fortress_gpu_power_watts"),
    # Of the programs that watch.
    *("up", "node_filesystem_avail_bytes", "node_filesystem_size_bytes", "otelcol_receiver_accepted_log_records"),
    *("prometheus_tsdb_head_series", "process_resident_memory_bytes"),
}
LABELS = {
    *("principal", "class", "verdict", "reason", "limit", "model", "direction", "le", "period", "where", "kind"),
    *("user", "device", "event", "job", "mountpoint", "address", "route"),
    *("receiver", "gpu", "name"),
}
FUNCTIONS = {
    *("sum", "min", "max", "count", "rate", "increase", "histogram_quantile", "time", "sort", "sort_desc", "by"),
    *("or", "vector", "count_over_time", "round", "clamp_min"),
}


@pytest.fixture(params=FILES)
def board(request: pytest.FixtureRequest) -> Any:
    return json.loads(FILES[request.param])


def leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for each in value.values():
            yield from leaves(each)
    elif isinstance(value, list):
        for each in value:
            yield from leaves(each)
    elif isinstance(value, str):
        yield value


@pytest.mark.parametrize("name", FILES)
def test_the_golden_files_are_the_reviewed_ones(name: str, golden: Golden):
    golden.check(f"dashboards/{name}", FILES[name])
    assert dashboards.files()[name] == FILES[name]


def test_file_provisioning_takes_it(board: Any):
    """Classic JSON: v2's `elements` and `layout` are refused, and an own number or version would be fought over."""
    assert board["schemaVersion"] == 42
    assert not {"elements", "layout", "apiVersion", "kind", "spec", "id", "version", "__inputs"} & set(board)
    assert re.fullmatch(r"fortress-[a-z]{1,31}", board["uid"])
    assert board["editable"] is False
    assert board["title"].startswith("Fortress: ")


def test_ids_and_places_are_each_of_one_panel(board: Any):
    panels = board["panels"]
    ids = [panel["id"] for panel in panels]
    assert ids == list(range(1, len(panels) + 1))
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in _rows(place)}
        assert not cells & taken, panel["title"]
        taken |= cells
    for panel in panels:
        letters = [target["refId"] for target in panel.get("targets", [])]
        assert len(letters) == len(set(letters))
        assert bool(letters) == (panel["type"] != "row"), panel["title"]


def _rows(place: Any) -> range:
    return range(place["y"], place["y"] + place["h"])


def test_every_question_goes_to_a_data_source_that_is_provisioned(board: Any):
    known = [{"type": source.value, "uid": source.value} for source in Source]
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            assert target["datasource"] in known
            assert panel["datasource"] == target["datasource"]
    for variable in board["templating"].get("list", []):
        assert variable.get("datasource", known[0]) in known


def test_no_variable_is_left_undefined(board: Any):
    own = {variable["name"] for variable in board["templating"].get("list", [])}
    built_in = {"__rate_interval", "__interval", "__range", "__all"}
    used = {name for text in leaves(board) for name in re.findall(r"\$\{?(\w+)", text)}
    assert used <= own | built_in
    assert own <= used, "a choice that changes nothing"


@pytest.mark.parametrize(("where", "query"), dashboards.questions(), ids=lambda each: str(each)[:60])
def test_every_question_is_about_what_is_measured(where: str, query: dashboards.Query):
    assert "$" not in query.text, where
    bare = re.sub(r'"[^"]*"|`[^`]*`', "", query.text)
    for left, right in ("()", "{}", "[]"):
        assert bare.count(left) == bare.count(right)
    if query.source is Source.LOKI:
        assert re.search(r'\{kind(=|=~)"[a-z.+]+"\}', query.text), "a stream is chosen by its label"
        return
    names = set(re.findall(r"(?<![\w.])[a-z_]\w*", re.sub(r"\[\w+\]|\{[^}]*\}|by \([^)]*\)", "", bare)))
    assert names <= METRICS | FUNCTIONS, names - METRICS - FUNCTIONS
    grouped = {label.strip() for group in re.findall(r"by \(([^)]*)\)", bare) for label in group.split(",")}
    assert grouped <= LABELS
    shown = set(re.findall(r"\{\{(\w+)\}\}", query.legend))
    assert shown <= grouped, "a legend names a label that the question sums away"


def test_the_command_writes_them_all(tmp_path: Path):
    written = dashboards.write(tmp_path / "new")
    assert {path.name: path.read_text() for path in written} == FILES


NOW = datetime(2026, 11, 26, 9, tzinfo=UTC)


def answer(source: Source, path: str, given: dict[str, str]) -> Any:
    """What a Prometheus and a Loki say that have one series of each label."""
    assert "$" not in given["query"]
    labels = {label: "x" for label in re.findall(r"\w+", "".join(re.findall(r"by \(([^)]*)\)", given["query"])))}
    if path.endswith("query"):
        return {"result": [{"metric": labels, "value": [float(given["time"]), "0.5"]}]}
    if source is Source.LOKI and "count" not in given["query"]:
        return {"result": [{"stream": {"kind": "audit"}, "values": [[f"{given['end']}000000000", '{"a":"<b>"}']]}]}
    start, end, step = (float(given[word]) for word in ("start", "end", "step"))
    moments = [start + at * step for at in range(int((end - start) / step) + 1)]
    values = [[at, "NaN" if n % 7 == 0 else str(n % 5)] for n, at in enumerate(moments)]
    return {"result": [{"metric": labels, "values": values}]}


@pytest.mark.parametrize("board", dashboards.BOARDS, ids=lambda board: board.name)
@pytest.mark.parametrize("get", [answer, lambda *_: {"result": []}], ids=["data", "nothing"])
def test_a_dashboard_is_drawn_from_live_answers(board: Board, get: drawn.Get):
    svg = drawn.draw(board, get, now=NOW)
    root = ElementTree.fromstring(svg)
    shown = {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    panels = json.loads(FILES[f"{board.name}.json"])["panels"]
    assert {panel["title"] for panel in panels if panel["type"] != "logs"} <= shown
    drawn_lines = list(root.iter("{http://www.w3.org/2000/svg}path"))
    assert bool(drawn_lines) == (get is answer)
