"""Is it up, who is on, and how does it feel?"""

from render.dashboards.parts import Board, Query, Row, graph, number, rows

UP = (("0", "down"), ("1", "up"))
HERE = "(time() - fortress_peer_last_handshake_timestamp_seconds < 180)"

BOARD = Board(
    "overview",
    "Fortress: overview",
    "Is it up, who is on, how fast is the first token, and what is used.",
    (
        Row(
            "Is it up?",
            (
                number("Ollama", "min(fortress_ollama_up)", words=UP, red_below=1),
                number("Tunnel", "min(fortress_tunnel_up)", words=UP, red_below=1),
                number("Parts that are down", "count(up == 0) or vector(0)", red_from=1),
                number(
                    "Next certificate ends in",
                    "min(fortress_certificate_expires_timestamp_seconds) - time()",
                    unit="s",
                    red_below=14 * 86400,
                ),
                number("Lost audit lines", "sum(increase(fortress_audit_lost_total[$__range]))", red_from=1),
                number("Blocked", "sum(fortress_blocked) or vector(0)", red_from=1),
            ),
        ),
        Row(
            "Now",
            (
                number("Devices here", f"count({HERE}) or vector(0)"),
                number("Open streams", "sum(fortress_streams)"),
                number("Waiting for a slot", "sum(fortress_queue_length)", red_from=1),
                number("Slots in use", "sum(fortress_slots_used)"),
                number("Tokens", "sum(increase(fortress_tokens_total[$__range]))"),
                number("Refusals", 'sum(increase(fortress_requests_total{verdict="refused"}[$__range]))'),
                rows(
                    "Who is here: seconds since the last handshake",
                    f"sort(max by (user, device) {HERE})",
                    unit="s",
                ),
                graph(
                    "Requests",
                    Query("sum by (verdict) (rate(fortress_requests_total[$__rate_interval]))", "{{verdict}}"),
                    unit="reqps",
                    stacked=True,
                ),
            ),
        ),
        Row(
            "How does it feel?",
            (
                graph(
                    "Time to the first token",
                    *(
                        Query(
                            f"histogram_quantile({share}, "
                            "sum by (le) (rate(fortress_first_token_seconds_bucket[$__rate_interval])))",
                            name,
                        )
                        for share, name in ((0.5, "half"), (0.95, "19 of 20"))
                    ),
                    unit="s",
                ),
                graph(
                    "Tokens",
                    Query("sum by (direction) (rate(fortress_tokens_total[$__rate_interval]))", "{{direction}}"),
                    about="Tokens a second: in is read, out is written.",
                ),
                graph("Waiting for a slot", Query("sum(fortress_queue_length)", "waiting")),
                graph("Open streams", Query("sum(fortress_streams)", "streams")),
            ),
        ),
    ),
)
