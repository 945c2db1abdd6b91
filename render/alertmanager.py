"""Alertmanager: who is told, and how often."""

from render.syntax import template
from settings import StackSettings

_CONFIG = template("""\
# {{ generated }}
route: {receiver: operator, group_by: [alertname], group_wait: 15s, group_interval: 1m, repeat_interval: 12h}
inhibit_rules:
  # Where Ollama is down, nobody needs to hear that answers are late.
  - {source_matchers: [alertname="OllamaDown"], target_matchers: ['alertname=~"FirstTokenSlow|QueueGrowing"']}
receivers:
  - name: operator
{% if email %}
    email_configs:
      - to: "{{ email.to | email }}"
        from: "{{ email.sender | email }}"
        smarthost: "{{ email.server | endpoint }}"
        auth_username: "{{ email.user | visible }}"
        auth_password_file: /config/current/email-password
        require_tls: true
        send_resolved: true
{% endif %}
{% if webhook or ntfy %}
    webhook_configs:
{% if webhook %}
      - {url_file: /config/current/webhook-url, send_resolved: true}
{% endif %}
{% if ntfy %}
      - url_file: /config/current/ntfy-url
        send_resolved: true
{% if ntfy.token %}
        http_config: {authorization: {type: Bearer, credentials_file: /config/current/ntfy-token}}
{% endif %}
{% endif %}
{% endif %}
{% if telegram %}
    telegram_configs:
      - bot_token_file: /config/current/telegram-token
        chat_id: {{ telegram.chat_id | integer }}
        send_resolved: true
        parse_mode: ""
        message: "{{ message | visible }}"
{% endif %}
""")

# Alertmanager's own template language.
_MESSAGE = (
    "{{ range .Alerts }}[{{ .Status }}] {{ .Labels.alertname }}: "
    "{{ .Annotations.summary }} {{ .Annotations.do }} {{ end }}"
)


def config(settings: StackSettings) -> str:
    told = settings.observability.alerts
    return _CONFIG.render(
        email=told and told.email,
        webhook=told and told.webhook,
        telegram=told and told.telegram,
        ntfy=told and told.ntfy,
        message=_MESSAGE,
    )


def secrets(settings: StackSettings) -> dict[str, str]:
    """File beside the config -> what it holds."""
    told = settings.observability.alerts
    if told is None:
        return {}
    files: dict[str, str] = {}
    if told.email:
        files["email-password"] = told.email.password.get_secret_value()
    if told.webhook:
        files["webhook-url"] = told.webhook.url.get_secret_value()
    if told.telegram:
        files["telegram-token"] = told.telegram.bot_token.get_secret_value()
    if told.ntfy:
        # ntfy makes Alertmanager's JSON readable by a template of its own.
        url = told.ntfy.url.get_secret_value()
        files["ntfy-url"] = f"{url}{'&' if '?' in url else '?'}template=alertmanager"
        if told.ntfy.token:
            files["ntfy-token"] = told.ntfy.token.get_secret_value()
    return files
