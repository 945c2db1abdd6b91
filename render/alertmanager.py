"""Alertmanager: who is told, and how often."""

from urllib.parse import quote, urlencode

from render.syntax import template
from settings import StackSettings

_CONFIG = template("""\
# {{ generated }}
route:
  receiver: operator
  group_by: [alertname]
  group_wait: 15s
  group_interval: 1m
  repeat_interval: 12h
  routes:
    # News waits for more of its kind: the ten devices of a first `up` are one message. The interval is shorter than any
    # news lasts, for what came and went between two would never be told.
    - {receiver: news, matchers: [severity="info"], group_wait: 1m, group_interval: 4m, repeat_interval: 24h}
    # It lasts an hour, and nobody mends it: whoever is next would bring up all those before.
    - {receiver: operator, matchers: [alertname="AdminRouteTried"], group_by: [alertname, principal]}
inhibit_rules:
  # Where Ollama is down, nobody needs to hear that answers are late, or none.
  - source_matchers: [alertname="OllamaDown"]
    target_matchers: ['alertname=~"FirstTokenSlow|QueueGrowing|AnswersFail"']
receivers:
{% for receiver, resolved in (("operator", "true"), ("news", "false")) %}
  - name: {{ receiver | name }}
{% if email %}
    email_configs:
      - to: "{{ email.to | email }}"
        from: "{{ email.sender | email }}"
        smarthost: "{{ email.server | endpoint }}"
        auth_username: "{{ email.user | escaped }}"
        auth_password_file: /config/current/email-password
        require_tls: true
        send_resolved: {{ resolved | name }}
        headers: {Subject: "{{ title | visible }}"}
        html: ""
        text: |
{% for line in text %}
          {{ line | visible }}
{% endfor %}
{% endif %}
{% if webhook or ntfy %}
    webhook_configs:
{% if webhook %}
      - {url_file: /config/current/webhook-url, send_resolved: {{ resolved | name }}}
{% endif %}
{% if ntfy %}
      - url_file: /config/current/ntfy-url
        send_resolved: {{ resolved | name }}
{% if ntfy.token %}
        http_config: {authorization: {type: Bearer, credentials_file: /config/current/ntfy-token}}
{% endif %}
{% endif %}
{% endif %}
{% if telegram %}
    telegram_configs:
      - bot_token_file: /config/current/telegram-token
        chat_id: {{ telegram.chat_id | integer }}
        send_resolved: {{ resolved | name }}
        parse_mode: ""
        message: |
          {{ title | visible }}
{% for line in text %}
          {{ line | visible }}
{% endfor %}
{% endif %}
{% endfor %}
""")

# Alertmanager's own template language.
_TITLE = "{{ .GroupLabels.alertname }}{{ if eq .Status `resolved` }} is over{{ end }}"
_TEXT = (
    "{{ range .Alerts }}- {{ .Annotations.summary }}",
    "  {{ if eq .Status `firing` }}{{ .Annotations.do }}{{ else }}That is over.{{ end }}",
    "{{ end }}",
)
# The same in ntfy's, of Alertmanager's JSON. Its own template for that does not know what to do.
_NTFY = {
    "tpl": "yes",
    "t": "{{.groupLabels.alertname}}{{if eq .status `resolved`}} is over{{end}}",
    "m": "{{range .alerts}}- {{.annotations.summary}}\\n"
    "  {{if eq .status `firing`}}{{.annotations.do}}{{else}}That is over.{{end}}\\n{{end}}",
}


def config(settings: StackSettings) -> str:
    told = settings.observability.alerts
    return _CONFIG.render(
        email=told and told.email,
        webhook=told and told.webhook,
        telegram=told and told.telegram,
        ntfy=told and told.ntfy,
        title=f"fortress {settings.stack}: {_TITLE}",
        text=_TEXT,
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
        url = told.ntfy.url.get_secret_value()
        words = _NTFY | {"t": f"fortress {settings.stack}: {_NTFY['t']}"}
        files["ntfy-url"] = f"{url}{'&' if '?' in url else '?'}{urlencode(words, quote_via=quote)}"
        if told.ntfy.token:
            files["ntfy-token"] = told.ntfy.token.get_secret_value()
    return files
