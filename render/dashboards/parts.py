"""What dashboards are made of: questions to Prometheus or Loki, and a handful of kinds of panel with one look.

Classic JSON of schema 42: what Grafana's file provisioning takes. The same text each time: ids by place, uids by name.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from grafana_foundation_sdk.builders import bargauge, dashboard, logs, loki, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders import common as shared
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from render.syntax import GENERATED


class Source(StrEnum):
    """A data source's uid, and its type."""

    PROMETHEUS = "prometheus"
    LOKI = "loki"

    @property
    def reference(self) -> common.DataSourceRef:
        return common.DataSourceRef(type_val=self.value, uid=self.value)


@dataclass(frozen=True)
class Query:
    text: str
    legend: str = ""
    source: Source = Source.PROMETHEUS
    instant: bool = False


@dataclass(frozen=True)
class Panel:
    """One panel; `kind` is number, graph, bars, rows or lines."""

    title: str
    kind: str
    queries: tuple[Query, ...]
    width: int = 12
    unit: str = "short"
    about: str = ""
    words: tuple[tuple[str, str], ...] = ()
    """Value -> what is shown for it, for a number."""
    red_from: float | None = None
    red_below: float | None = None
    stacked: bool = False


@dataclass(frozen=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Choice:
    """A variable: of a Prometheus label's values, of fixed words, or a free text."""

    name: str
    label: str
    metric: str = ""
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Board:
    name: str
    """The last part of its uid, which never changes: Grafana silently drops a file whose uid did."""
    title: str
    about: str
    rows: tuple[Row, ...]
    choices: tuple[Choice, ...] = ()
    since: str = "now-6h"

    @property
    def uid(self) -> str:
        return f"fortress-{self.name}"


def number(title: str, text: str, *, width: int = 4, source: Source = Source.PROMETHEUS, **more: Any) -> Panel:
    return Panel(title, "number", (Query(text, source=source, instant=True),), width, **more)


def graph(title: str, *queries: Query, **more: Any) -> Panel:
    return Panel(title, "graph", queries, **more)


def bars(title: str, text: str, legend: str, *, source: Source = Source.PROMETHEUS, **more: Any) -> Panel:
    return Panel(title, "bars", (Query(text, legend, source, instant=True),), **more)


def rows(title: str, text: str, *, source: Source = Source.PROMETHEUS, **more: Any) -> Panel:
    return Panel(title, "rows", (Query(text, source=source, instant=True),), **more)


def lines(title: str, text: str, **more: Any) -> Panel:
    return Panel(title, "lines", (Query(text, source=Source.LOKI),), **{"width": 24, **more})


def encode(board: Board) -> str:
    made = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(f"{board.about} {GENERATED[0].upper()}{GENERATED[1:]}.")
        .tags(["fortress"])
        .readonly()
        .timezone("browser")
        .refresh("30s")
        .time(board.since, "now")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .link(dashboard.DashboardLink("Fortress").type(model.DashboardLinkType.DASHBOARDS).tags(["fortress"]))
    )
    for choice in board.choices:
        made.with_variable(_variable(choice))
    count = 0
    for row in board.rows:
        count += 1
        made.with_row(dashboard.Row(row.title).id(count))
        for panel in row.panels:
            count += 1
            made.with_panel(_panel(panel, count))
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


def asked(text: str) -> list[tuple[str, Query]]:
    """Every question of an encoded dashboard, with its panel's title."""
    return [
        (panel["title"], question(target))
        for panel in json.loads(text)["panels"]
        for target in panel.get("targets", [])
    ]


def question(target: Any) -> Query:
    """The question of one target in a dashboard's JSON."""
    instant = bool(target.get("instant")) or target.get("queryType") == "instant"
    return Query(target["expr"], target.get("legendFormat", ""), Source(target["datasource"]["uid"]), instant)


def asked_itself(text: str, window: str, whole: str) -> str:
    """A question as Prometheus or Loki itself takes it: Grafana's words filled in, everybody chosen.

    window: instead of its intervals; whole: instead of the time that is shown.
    """
    words = {"$__rate_interval": window, "$__interval": window, "$__range": whole}
    for word, value in (words | {"$user": ".*", "$kind": ".+", "$search": ""}).items():
        text = text.replace(word, value)
    return text


def _panel(panel: Panel, id_: int) -> Any:
    build = {"number": _number, "graph": _graph, "bars": _bars, "rows": _rows, "lines": _lines}[panel.kind]
    height = {"number": 4, "lines": 12}.get(panel.kind, 8)
    made = build(panel).id(id_).title(panel.title).span(panel.width).height(height)
    made.datasource(panel.queries[0].source.reference)
    if panel.about:
        made.description(panel.about)
    for query, letter in zip(panel.queries, "ABCDEF", strict=False):
        made.with_target(_target(query, letter, as_table=panel.kind == "rows"))
    return made


def _target(query: Query, letter: str, *, as_table: bool) -> Any:
    if query.source is Source.LOKI:
        asked = loki.Dataquery().expr(query.text).query_type("instant" if query.instant else "range")
    else:
        asked = prometheus.Dataquery().expr(query.text)
        asked = asked.instant() if query.instant else asked.range()
        if as_table:
            asked.format(PromQueryFormat.TABLE)
    if query.legend:
        asked.legend_format(query.legend)
    return asked.ref_id(letter).datasource(query.source.reference)


def _limits(panel: Panel) -> dashboard.ThresholdsConfig:
    steps = [model.Threshold(value=None, color="green")]
    if panel.red_from is not None:
        steps.append(model.Threshold(value=panel.red_from, color="red"))
    if panel.red_below is not None:
        steps = [model.Threshold(value=None, color="red"), model.Threshold(value=panel.red_below, color="green")]
    if panel.red_from is None and panel.red_below is None:
        steps = [model.Threshold(value=None, color="text")]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)


def _reduced() -> shared.ReduceDataOptions:
    return shared.ReduceDataOptions().calcs(["lastNotNull"])


def _number(panel: Panel) -> stat.Panel:
    made = stat.Panel().unit(panel.unit).thresholds(_limits(panel)).reduce_options(_reduced()).no_value("none")
    made.graph_mode(common.BigValueGraphMode.NONE).color_scheme(_by_threshold())
    if panel.unit == "short":
        made.decimals(0)
    if panel.words:
        shown = {value: model.ValueMappingResult(text=text) for value, text in panel.words}
        made.mappings([model.ValueMap(options=shown)])
    return made


def _graph(panel: Panel) -> timeseries.Panel:
    made = timeseries.Panel().unit(panel.unit).min(0).line_width(2).fill_opacity(25 if panel.stacked else 8)
    made.show_points(common.VisibilityMode.NEVER).span_nulls(False)
    if panel.stacked:
        made.stacking(shared.StackingConfig().mode(common.StackingMode.NORMAL))
    made.legend(
        shared.VizLegendOptions()
        .show_legend(True)
        .display_mode(common.LegendDisplayMode.LIST)
        .placement(common.LegendPlacement.BOTTOM)
    )
    return made.tooltip(
        shared.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
    )


def _bars(panel: Panel) -> bargauge.Panel:
    made = bargauge.Panel().unit(panel.unit).min(0).thresholds(_limits(panel)).reduce_options(_reduced())
    if panel.unit == "percentunit":
        made.max(1)
    return made.orientation(common.VizOrientation.HORIZONTAL).display_mode(common.BarGaugeDisplayMode.BASIC)


def _rows(panel: Panel) -> table.Panel:
    return table.Panel().unit(panel.unit).cell_height(common.TableCellHeight.SM)


def _lines(panel: Panel) -> logs.Panel:
    return (
        logs.Panel()
        .show_time(True)
        .wrap_log_message(True)
        .enable_log_details(True)
        .sort_order(common.LogsSortOrder.DESCENDING)
    )


def _by_threshold() -> dashboard.FieldColor:
    return dashboard.FieldColor().mode(model.FieldColorModeId.THRESHOLDS)


def _variable(choice: Choice) -> Any:
    if choice.metric:
        made = dashboard.QueryVariable(choice.name).label(choice.label).datasource(Source.PROMETHEUS.reference)
        made.query(choice.metric).refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED).multi(True)
        return made.include_all(True).all_value(".*").current(_everything())
    if choice.values:
        made = dashboard.CustomVariable(choice.name).label(choice.label).values(",".join(choice.values)).multi(True)
        return made.include_all(True).all_value(".+").current(_everything())
    return dashboard.TextBoxVariable(choice.name).label(choice.label).default_value("")


def _everything() -> model.VariableOption:
    return model.VariableOption(selected=True, text="All", value="$__all")


__all__: Sequence[str] = [
    "Board",
    "Choice",
    "Panel",
    "Query",
    "Row",
    "Source",
    "asked",
    "asked_itself",
    "bars",
    "encode",
    "graph",
    "lines",
    "number",
    "question",
    "rows",
]
