"""Grafana: shows what Prometheus and Loki have, to whom the Gateway vouches for, and changes nothing.

All of it is provisioned from files. It calls nobody outside, and knows a reader only by the Gateway's word.
"""

from render.loki import PORT as LOKI_PORT
from render.nginx import GRAFANA_PORT as PORT
from render.prometheus import ALERTMANAGER_PORT
from render.prometheus import PORT as PROMETHEUS_PORT
from render.syntax import template
from settings import Plan, StackSettings

PATH = "/grafana/"
USER_HEADER = "X-Fortress-User"
"""In which the Gateway says who reads; whoever else sends it is not believed."""

_CONFIG = template("""\
# {{ generated }}
[paths]
data = /var/lib/grafana
plugins = /var/lib/grafana/plugins
provisioning = /config/current/provisioning

[server]
protocol = http
http_addr = {{ own | address }}
http_port = {{ port | number }}
domain = {{ domain | domain }}
root_url = https://{{ domain | domain }}{{ path | path }}
serve_from_sub_path = true

[database]
type = sqlite3
wal = true

[log]
mode = console
level = warn

# Nobody is asked to sign in: the Gateway says who it is, from its own address alone.
[auth]
disable_login_form = true
disable_signout_menu = true
[auth.anonymous]
enabled = false
[auth.basic]
enabled = false
[auth.proxy]
enabled = true
header_name = {{ header | name }}
header_property = username
auto_sign_up = true
enable_login_token = false
whitelist = {{ gateway | address }}
[users]
allow_sign_up = false
allow_org_create = false
auto_assign_org_role = Viewer
viewers_can_edit = false

[security]
# Made once; its text lies in a file of its own, and nobody needs it.
admin_user = fortress
admin_password = $__file{/config/current/admin-password}
cookie_secure = true
cookie_samesite = strict
content_security_policy = true
strict_transport_security = true
disable_gravatar = true
[snapshots]
enabled = false
external_enabled = false
[dashboards]
min_refresh_interval = 5s
default_home_dashboard_path = /config/current/dashboards/overview.json

# Nothing is asked of anybody outside.
[analytics]
enabled = false
reporting_enabled = false
check_for_updates = false
check_for_plugin_updates = false
feedback_links_enabled = false
[news]
news_feed_enabled = false
[plugins]
# On a read-only root the installer would stop the plugins that are built in, and never start them again.
preinstall_disabled = true
preinstall_auto_update = false
plugin_admin_enabled = false
public_key_retrieval_disabled = true
[help]
enabled = false

# Prometheus' and Loki's own rules tell: those are tested.
[unified_alerting]
enabled = false
[explore]
enabled = true
[metrics]
enabled = false
# Panels ask at intervals; the Gateway lets no connection stay open for news.
[live]
max_connections = 0
""")

_SOURCES = template("""\
# {{ generated }}
apiVersion: 1
prune: true
datasources:
  - name: Prometheus
    uid: prometheus
    type: prometheus
    access: proxy
    url: "http://{{ prometheus | endpoint }}"
    isDefault: true
    editable: false
    # Else it would ask for a variable's values by POST first, which the Gateway refuses.
    jsonData: {httpMethod: GET, timeInterval: 15s, manageAlerts: false}
  - name: Loki
    uid: loki
    type: loki
    access: proxy
    url: "http://{{ loki | endpoint }}"
    editable: false
    jsonData: {maxLines: 1000, manageAlerts: false}
  - name: Alertmanager
    uid: alertmanager
    type: alertmanager
    access: proxy
    url: "http://{{ alertmanager | endpoint }}"
    editable: false
    jsonData: {implementation: prometheus, handleGrafanaManagedAlerts: false}
""")

_BOARDS = template("""\
# {{ generated }}
apiVersion: 1
providers:
  - name: fortress
    folder: Fortress
    folderUid: fortress
    type: file
    # A dashboard whose file goes is gone too.
    disableDeletion: false
    allowUiUpdates: false
    updateIntervalSeconds: 30
    options: {path: /config/current/dashboards, foldersFromFilesStructure: false}
""")


def files(settings: StackSettings, plan: Plan) -> dict[str, str]:
    """Everything but the dashboards and the password."""
    there = plan.telemetry
    return {
        "grafana.ini": _CONFIG.render(
            own=plan.watch.grafana,
            port=PORT,
            domain=settings.browser_domain,
            path=PATH,
            header=USER_HEADER,
            gateway=plan.watch.gateway,
        ),
        "provisioning/datasources/fortress.yaml": _SOURCES.render(
            prometheus=f"{there.prometheus}:{PROMETHEUS_PORT}",
            loki=f"{there.loki}:{LOKI_PORT}",
            alertmanager=f"{there.alertmanager}:{ALERTMANAGER_PORT}",
        ),
        "provisioning/dashboards/fortress.yaml": _BOARDS.render(),
    }
