"""Each user: requests, tokens against budget, models, refusals."""

from render.dashboards.parts import Board, Choice, Query, Row, bars, graph, lines, rows

OF = '{principal=~"$user", principal!=""}'

BOARD = Board(
    "users",
    "Fortress: users",
    "What each user asks, uses and is refused.",
    (
        Row(
            "Use",
            (
                graph(
                    "Requests",
                    Query(f"sum by (principal) (rate(fortress_requests_total{OF}[$__rate_interval]))", "{{principal}}"),
                    unit="reqps",
                ),
                graph(
                    "Tokens a second",
                    Query(f"sum by (principal) (rate(fortress_tokens_total{OF}[$__rate_interval]))", "{{principal}}"),
                    stacked=True,
                ),
                bars(
                    "Budget used",
                    'max by (principal, period) (fortress_budget_used_ratio{principal=~"$user"})',
                    "{{principal}}, {{period}}",
                    unit="percentunit",
                    red_from=0.8,
                    about="Of tokens_per_day and tokens_per_month; users without a budget are not here.",
                ),
                bars(
                    "Tokens by model",
                    f"sum by (principal, model) (increase(fortress_tokens_total{OF}[$__range])) > 0",
                    "{{principal}}, {{model}}",
                ),
            ),
        ),
        Row(
            "Refused",
            (
                rows(
                    "Requests by verdict",
                    "sort_desc(sum by (principal, class, verdict) "
                    f"(increase(fortress_requests_total{OF}[$__range])) > 0)",
                ),
                rows(
                    "Limits hit",
                    'sort_desc(sum by (principal, limit) (increase(fortress_limits_hit_total{principal=~"$user"}'
                    "[$__range])) > 0)",
                ),
            ),
        ),
        Row(
            "Devices",
            (
                graph(
                    "Received from devices",
                    Query(
                        'sum by (user, device) (rate(fortress_peer_received_bytes_total{user=~"$user"}'
                        "[$__rate_interval]))",
                        "{{user}}/{{device}}",
                    ),
                    unit="Bps",
                ),
                graph(
                    "Sent to devices",
                    Query(
                        'sum by (user, device) (rate(fortress_peer_sent_bytes_total{user=~"$user"}[$__rate_interval]))',
                        "{{user}}/{{device}}",
                    ),
                    unit="Bps",
                ),
                lines("Requests", '{kind="audit"} | principal=~"$user"'),
            ),
        ),
    ),
    choices=(Choice("user", "User", metric="label_values(fortress_requests_total, principal)"),),
)
