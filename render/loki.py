"""Loki: one process, on a volume or an object store; and the rules by which it tells Alertmanager of lines."""

from pathlib import Path

from render.syntax import GENERATED, template
from settings import Plan, StackSettings

PORT = 3100
RULES = Path(__file__).parent / "rules" / "loki.yml"

_CONFIG = template("""\
# {{ generated }}
auth_enabled: false
analytics: {reporting_enabled: false}
server:
  http_listen_address: "{{ own | address }}"
  http_listen_port: {{ port | number }}
  grpc_listen_address: 127.0.0.1
  grpc_listen_port: 9096
  log_level: warn
common:
  instance_addr: 127.0.0.1
  path_prefix: /var/lib/loki
  replication_factor: 1
  ring: {kvstore: {store: inmemory}}
  storage:
{% if store %}
    # The keys lie in a file beside this one, which the environment names.
    s3:
      endpoint: "{{ store.endpoint | host }}"
      bucketnames: "{{ store.bucket | name }}"
      region: "{{ store.region | name }}"
      s3forcepathstyle: true
{% if store.ca_file %}
      http_config: {ca_file: /config/current/store-ca.pem}
{% endif %}
{% else %}
    filesystem: {chunks_directory: /var/lib/loki/chunks, rules_directory: /var/lib/loki/rules}
{% endif %}
schema_config:
  configs:
    - from: "2025-01-01"
      store: tsdb
      object_store: {{ kind | name }}
      schema: v13
      index: {prefix: index_, period: 24h}

ingester:
  # Ready at once: there is no second one to wait for.
  lifecycler: {min_ready_duration: 0s}
  # Half of it is how much older than the newest a line may be. All that the gateway's files may hold is taken: what
  # waited out an outage, or for the day on which Loki came. A chunk ends by its size, or after half an hour's rest.
  max_chunk_age: {{ span | number }}h
  chunk_encoding: snappy
  # A line that is sent twice is kept once only while its block is open: few and large ones.
  chunk_block_size: 8388608
  chunk_target_size: 16777216
  # Lines that cannot be written down are not taken: they wait with the collector. DiskFilling has told before.
  wal: {replay_memory_ceiling: 64MB, disk_full_threshold: 0.97}
compactor:
  working_directory: /var/lib/loki/compactor
  compaction_interval: 10m
  retention_enabled: true
  retention_delete_delay: 2h
  delete_request_store: {{ kind | name }}
limits_config:
  retention_period: {{ logs | number }}h
  retention_stream: [{selector: '{kind="audit"}', priority: 1, period: {{ audit | number }}h}]
  # Nobody deletes a line by asking.
  deletion_mode: disabled
  # The only labels are `kind` and `service_name`; no client can add a stream.
  otlp_config: {resource_attributes: {attributes_config: [{action: index_label, attributes: [kind]}]}}
  max_global_streams_per_user: 100
  max_label_names_per_series: 15
  allow_structured_metadata: true
  discover_log_levels: false
  volume_enabled: true
  # A late line is a line: a clock or an outage must not cost one.
  reject_old_samples: false
  max_line_size: 256KB
  max_line_size_truncate: true
  ingestion_rate_mb: 16
  ingestion_burst_size_mb: 32
  per_stream_rate_limit: 16MB
  per_stream_rate_limit_burst: 32MB
  max_entries_limit_per_query: 20000
  max_query_parallelism: 4
  max_query_series: 1000
querier: {max_concurrent: 2}
# Kept small: what is asked is mostly new.
query_range: {cache_results: false}
chunk_store_config: {chunk_cache_config: {embedded_cache: {enabled: true, max_size_mb: 16}}}
ruler:
  storage: {type: local, local: {directory: /config/current/rules}}
  rule_path: /var/lib/loki/rules-eval
  evaluation_interval: 30s
  alertmanager_url: "http://{{ alertmanager | address }}:9093"
  enable_alertmanager_v2: true
  enable_api: true
  ring: {kvstore: {store: inmemory}}
""")


def config(settings: StackSettings, plan: Plan) -> str:
    own = settings.observability
    return _CONFIG.render(
        own=plan.telemetry.loki,
        port=PORT,
        store=own.object_storage,
        kind="s3" if own.object_storage else "filesystem",
        audit=own.retention.audit_days * 24,
        logs=own.retention.logs_days * 24,
        span=own.audit_files_days * 24 * 2,
        alertmanager=plan.telemetry.alertmanager,
    )


def rules() -> str:
    return f"# {GENERATED}\n{RULES.read_text()}"


def credentials(settings: StackSettings) -> str:
    """The keys of the object store, as Amazon's tools write them."""
    store = settings.observability.object_storage
    assert store is not None, "only a stack with an object store has its keys"
    return (
        f"[default]\naws_access_key_id = {store.access_key}\n"
        f"aws_secret_access_key = {store.secret_key.get_secret_value()}\n"
    )
