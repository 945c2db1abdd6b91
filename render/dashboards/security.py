"""What an attacker, a thief of keys or a careless admin would leave behind."""

from fortress.review import UNPROVEN
from render.dashboards.parts import Board, Query, Row, Source, bars, graph, lines, number, rows


def _tunnel(event: str) -> str:
    """Of the lines, not the counter: what happened before a first scrape is no increase."""
    return f'sum(count_over_time({{kind="tunnel"}} | event="{event}" [$__range]))'


BOARD = Board(
    "security",
    "Fortress: security",
    "Failed proofs, refusals, blocked users, new and roaming devices, and what admins did.",
    (
        Row(
            "Today",
            (
                number("Failed proofs", "sum(increase(fortress_auth_failures_total[$__range]))", red_from=30),
                number("Refusals", 'sum(increase(fortress_requests_total{verdict="refused"}[$__range]))'),
                number("Blocked users", 'sum(fortress_blocked{kind="user"}) or vector(0)', red_from=1),
                number("Blocked addresses", 'sum(fortress_blocked{kind="address"}) or vector(0)', red_from=1),
                number("New devices", _tunnel("peer-new"), source=Source.LOKI, red_from=1),
                number("Roamings", _tunnel("peer-roamed"), source=Source.LOKI),
            ),
        ),
        Row(
            "Refused",
            (
                graph(
                    "Refusals by reason",
                    Query("sum by (reason) (rate(fortress_refusals_total[$__rate_interval]))", "{{reason}}"),
                    unit="reqps",
                    stacked=True,
                ),
                graph(
                    "Failed proofs",
                    Query("sum(rate(fortress_auth_failures_total[$__rate_interval]))", "failed"),
                    unit="reqps",
                ),
                rows(
                    "Who tried what is not theirs",
                    "sum by (principal, address, route, reason) "
                    '(count_over_time({kind="audit"} | status=~"403|404|405" [$__range]))',
                    source=Source.LOKI,
                ),
                bars(
                    "Without a valid proof, by tunnel address",
                    f'sum by (address) (count_over_time({{kind="audit"}} | reason=~"{"|".join(UNPROVEN)}" [$__range]))',
                    "{{address}}",
                    source=Source.LOKI,
                ),
            ),
        ),
        Row(
            "Devices",
            (
                bars(
                    "Moved to another place while connected",
                    "sum by (user, device) (increase(fortress_peer_endpoint_changes_total[$__range]))",
                    "{{user}}/{{device}}",
                    red_from=4,
                ),
                graph(
                    "Coming and going",
                    Query("sum by (event) (increase(fortress_tunnel_events_total[$__rate_interval]))", "{{event}}"),
                ),
                lines("Tunnel", '{kind="tunnel"}'),
            ),
        ),
        Row(
            "People",
            (
                lines("Commands of admins", '{kind="command"}', width=12),
                lines("Sign-ins", '{kind="login"}', width=12),
                lines("Requests of admin routes", '{kind="audit"} | route=~"/api/(copy|delete|create|blobs.*)"'),
            ),
        ),
    ),
    since="now-24h",
)
