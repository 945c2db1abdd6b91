"""Is it enough: slots, queue, memory, disk, and those who watch."""

from render.dashboards.parts import Board, Query, Row, bars, graph, number

BEHIND = (
    "round(clamp_min(sum(increase(fortress_audit_lines_total[1h]))"
    ' - sum(increase(otelcol_receiver_accepted_log_records{receiver="file_log/audit"}[1h])), 0))'
)
ABOUT_BEHIND = "Of the last hour, and by two clocks: a few are always on their way."
GPU = "{{gpu}} {{name}}"
NO_GPU = "Share of each second in which it computed. Empty where Ollama has no GPU of NVIDIA's."
FREE = "(node_filesystem_avail_bytes / node_filesystem_size_bytes)"


def _quantile(share: float, histogram: str) -> str:
    return f"histogram_quantile({share}, sum by (le) (rate({histogram}_bucket[$__rate_interval])))"


def _each(figure: str) -> str:
    return f"max by (gpu, name) (fortress_gpu_{figure})"


BOARD = Board(
    "capacity",
    "Fortress: capacity",
    "Slots, queue, memory, disk, and what watching itself takes.",
    (
        Row(
            "Inference",
            (
                graph("Slots", Query("sum(fortress_slots)", "there"), Query("sum(fortress_slots_used)", "in use")),
                graph(
                    "Queue",
                    Query("sum(fortress_queue_length)", "waiting"),
                    about="Requests that wait for a slot; beyond queue_total they are refused.",
                ),
                graph("Wait for a slot", Query(_quantile(0.95, "fortress_queue_seconds"), "19 of 20"), unit="s"),
                graph(
                    "Gap between two chunks", Query(_quantile(0.95, "fortress_chunk_gap_seconds"), "19 of 20"), unit="s"
                ),
                graph("Length of a request", Query(_quantile(0.95, "fortress_request_seconds"), "19 of 20"), unit="s"),
                graph(
                    "Memory of loaded models",
                    Query("sum by (model, where) (fortress_ollama_model_bytes)", "{{model}} in {{where}}"),
                    unit="bytes",
                    stacked=True,
                    about="vram is the GPU's; a model that is partly in ram there does not fit.",
                ),
            ),
        ),
        Row(
            "GPU",
            (
                graph("Use", Query(_each("used_ratio"), GPU), unit="percentunit", width=6, about=NO_GPU),
                graph(
                    "Memory",
                    Query(_each("memory_used_bytes"), f"{GPU} used"),
                    Query(_each("memory_total_bytes"), f"{GPU} there"),
                    unit="bytes",
                    width=6,
                    about="Of all that run on it; what is Ollama's shows above.",
                ),
                graph("Temperature", Query(_each("temperature_celsius"), GPU), unit="celsius", width=6),
                graph("Power", Query(_each("power_watts"), GPU), unit="watt", width=6),
            ),
        ),
        Row(
            "Disk",
            (
                bars("Free space", f"min by (mountpoint) {FREE}", "{{mountpoint}}", unit="percentunit", red_below=0.1),
                graph(
                    "Free space",
                    Query("min by (mountpoint) (node_filesystem_avail_bytes)", "{{mountpoint}}"),
                    unit="bytes",
                ),
            ),
        ),
        Row(
            "Those who watch",
            (
                number("Audit lines a second", "sum(rate(fortress_audit_lines_total[$__rate_interval]))", width=8),
                number("Audit lines not yet in Loki", BEHIND, width=8, about=ABOUT_BEHIND, red_from=1000),
                number("Series in Prometheus", "sum(prometheus_tsdb_head_series)", width=8),
                graph(
                    "Memory",
                    Query("sum by (job) (process_resident_memory_bytes)", "{{job}}"),
                    unit="bytes",
                    stacked=True,
                ),
                graph(
                    "Lines sent to Loki",
                    Query(
                        'sum(rate({__name__=~"otelcol_exporter_sent_log_records(_total)?"}[$__rate_interval]))', "sent"
                    ),
                    unit="cps",
                ),
            ),
        ),
    ),
)
