"""Prometheus: what it asks, and the rules by which it tells Alertmanager of figures."""

from pathlib import Path

from render.collector import OWN_PORT as COLLECTOR_PORT
from render.loki import PORT as LOKI_PORT
from render.nginx import METRICS_PORT
from render.syntax import GENERATED, template
from settings import Plan

PORT, EXPORTER_PORT, ALERTMANAGER_PORT = 9090, 9100, 9093
RULES = Path(__file__).parent / "rules" / "prometheus.yml"

_CONFIG = template("""\
# {{ generated }}
global: {scrape_interval: 15s, scrape_timeout: 10s, evaluation_interval: 15s}
rule_files: [/config/current/rules.yml]
alerting: {alertmanagers: [{static_configs: [{targets: ["{{ alertmanager | endpoint }}"]}]}]}
# A client that could name figures could fill the disk: what is above the limits is dropped and seen as down.
scrape_configs:
{% for job, target in jobs %}
  - job_name: {{ job | name }}
    sample_limit: 20000
    body_size_limit: 16MB
    static_configs: [{targets: ["{{ target | endpoint }}"], labels: {instance: {{ job | name }}}}]
{% endfor %}
""")


def jobs(plan: Plan) -> tuple[tuple[str, str], ...]:
    """(job, where it is asked)"""
    there = plan.telemetry
    return (
        ("gateway", f"{plan.watch.gateway}:{METRICS_PORT}"),
        ("node", f"{there.node_exporter}:{EXPORTER_PORT}"),
        ("collector", f"{there.collector}:{COLLECTOR_PORT}"),
        ("loki", f"{there.loki}:{LOKI_PORT}"),
        ("prometheus", f"{there.prometheus}:{PORT}"),
        ("alertmanager", f"{there.alertmanager}:{ALERTMANAGER_PORT}"),
    )


def config(plan: Plan) -> str:
    return _CONFIG.render(alertmanager=f"{plan.telemetry.alertmanager}:{ALERTMANAGER_PORT}", jobs=jobs(plan))


def rules() -> str:
    return f"# {GENERATED}\n{RULES.read_text()}"
