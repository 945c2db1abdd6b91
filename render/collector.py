"""The OpenTelemetry Collector: reads what was written to files, and hands it to Loki; each line once."""

from render import loki
from render.syntax import template
from settings import Plan

OWN_PORT, HEALTH_PORT = 8888, 13133

_CONFIG = template("""\
# {{ generated }}
extensions:
  # Positions in the files: they outlive a kill.
  file_storage: {directory: /var/lib/collector, create_directory: true, fsync: true}
  health_check: {endpoint: "127.0.0.1:{{ health | number }}"}

receivers:
{% for kind, service, path in trails %}
  file_log/{{ kind | name }}:
    include: ["{{ path | path }}*.json"]
    start_at: beginning
    storage: file_storage
    include_file_name: false
    max_log_size: 1MiB
    poll_interval: 500ms
    resource: {service.name: "{{ service | name }}", kind: "{{ kind | name }}"}
    # Loki down: the file waits, it is not skipped.
    retry_on_failure: {enabled: true, max_elapsed_time: 0}
    operators:
      # A line that is no JSON is kept as it is.
      - {type: json_parser, on_error: send_quiet}
      - type: time_parser
        if: 'attributes.time != nil'
        parse_from: attributes.time
        layout_type: gotime
        layout: "2006-01-02T15:04:05.999Z07:00"
        on_error: send_quiet
      - {type: remove, field: attributes.time, if: 'attributes.time != nil'}
{% endfor %}

processors:
  # What Loki would refuse, and with it a whole batch.
  transform:
    error_mode: ignore
    log_statements:
      - truncate_all(log.attributes, 2048)
      - limit(log.attributes, 64, [])
      # A clock that jumped ahead and came back: Loki takes no line from the future.
      - set(log.time, log.observed_time) where log.time - log.observed_time > Duration("5m")
      # A machine without a battery began in 1970; no line is older than this program.
      - set(log.time, log.observed_time) where log.time < Time("2026-01-01", "%Y-%m-%d")
      # A line that is read again after a kill is to Loki the same only if nothing of it differs.
      - set(log.observed_time_unix_nano, 0) where log.time_unix_nano > 0

exporters:
  otlp_http:
    endpoint: "http://{{ loki | address }}:{{ loki_port | number }}/otlp"
    compression: gzip
    retry_on_failure: {enabled: true, initial_interval: 500ms, max_interval: 5s, max_elapsed_time: 0}
    # The files are the queue. One in between forgets a batch that it has taken when its own disk is full; without, a
    # position goes on only when Loki has said yes.
    sending_queue: {enabled: false}

service:
  extensions: [file_storage, health_check]
  telemetry:
    logs: {level: warn}
    metrics:
      level: normal
      readers: [{pull: {exporter: {prometheus: {host: "{{ own | address }}", port: {{ port | number }}}}}}]
  pipelines:
    logs:
      receivers:
{% for kind, _, _ in trails %}
        - file_log/{{ kind | name }}
{% endfor %}
      processors: [transform]
      exporters: [otlp_http]
""")

TRAILS = (
    ("audit", "gateway", "/var/log/gateway/audit"),
    ("command", "fortress", "/var/log/gateway/commands"),
    ("tunnel", "vpn-node", "/var/log/vpn-node/events"),
    ("login", "login", "/var/log/login/auth"),
)
"""(Loki's label `kind`, its label `service_name`, the files' path up to what rotation adds)."""


def config(plan: Plan) -> str:
    return _CONFIG.render(
        trails=TRAILS,
        health=HEALTH_PORT,
        own=plan.telemetry.collector,
        port=OWN_PORT,
        loki=plan.telemetry.loki,
        loki_port=loki.PORT,
    )
