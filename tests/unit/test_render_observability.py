"""What watches: reviewed configs that the real programs accept, and rules whose tests promtool runs."""

import configparser
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from fortress import paths
from images import reference
from render import alertmanager, collector, dashboards, grafana, loki, prometheus
from render.syntax import NotInItsPlace
from settings import PROJECT, ConfigRefused, StackSettings, load
from tests.unit.conftest import Golden

HERE = Path(__file__).parent
STORE = {
    "endpoint": "minio.example.com:9000",
    "bucket": "loki",
    "access_key": "AKIAEXAMPLE",
    "secret_key": "s3cret/of+the-store",
}
TOLD: dict[str, Any] = {
    "email": {
        "to": "ada@example.com",
        "sender": "fortress@example.com",
        "server": "smtp.example.com:587",
        "user": "fortress",
        "password": "s3cret of the mail",
    },
    "webhook": {"url": "https://hooks.example.com/s3cret-hook"},
    "telegram": {"bot_token": "12345:s3cret-telegram-token", "chat_id": -42},
    "ntfy": {"url": "https://ntfy.example.com/s3cret-topic", "token": "tk_s3cret"},
}
FULL = {
    "form": "full",
    "object_storage": STORE | {"ca_file": "ca.pem"},
    "alerts": TOLD,
    "retention": {"audit_days": 30},
}


def settings(observability: Any) -> StackSettings:
    config = {
        "users": {"ada": {"role": "admin"}},
        "wireguard": {"endpoint": "vpn.example.com:51820"},
        "observability": observability,
    }
    return load("test", {f"{PROJECT}:{key}": value for key, value in config.items()})


CASES = {"plain": settings("full"), "everything": settings(FULL)}


def texts(of: StackSettings) -> dict[str, str]:
    return {
        "collector.yaml": collector.config(of.plan),
        "loki.yaml": loki.config(of, of.plan),
        "prometheus.yml": prometheus.config(of.plan),
        "alertmanager.yml": alertmanager.config(of),
        **{f"grafana/{name}": text for name, text in grafana.files(of, of.plan).items()},
    }


@pytest.mark.parametrize("case", CASES)
def test_the_golden_files_are_the_reviewed_ones(case: str, golden: Golden):
    for name, text in texts(CASES[case]).items():
        golden.check(f"observability/{case}/{name}", text)


@pytest.mark.parametrize("user", ["CORP\\bob", 'a"b', "it's", "#x:{y}", "\\"])
def test_whatever_name_a_mail_server_knows_reaches_it(user: str):
    of = settings({"form": "full", "alerts": {"email": TOLD["email"] | {"user": user}}})
    receivers = yaml.safe_load(alertmanager.config(of))["receivers"]
    assert [each["email_configs"][0]["auth_username"] for each in receivers] == [user, user]


def run(image: str, files: dict[str, str], folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    current = folder / "current"
    for name, text in files.items():
        (current / name).parent.mkdir(parents=True, exist_ok=True)
        (current / name).write_text(text)
    folder.chmod(0o755)
    words = ["docker", "run", "--rm", "--network", "none", "--read-only", "--cap-drop", "ALL", "--tmpfs", "/tmp"]
    words += ["-v", f"{folder}:/config:ro", "--entrypoint", command[0]]
    words += [reference(image, os.environ.get("FORTRESS_ENGINE", "registry-only")), *command[1:]]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("image", "file", "command"),
    [
        ("collector", "collector.yaml", "otelcol validate --config /config/current/collector.yaml"),
        ("loki", "loki.yaml", "loki -config.file=/config/current/loki.yaml -verify-config"),
        ("prometheus", "prometheus.yml", "promtool check config /config/current/prometheus.yml"),
        ("alertmanager", "alertmanager.yml", "amtool check-config /config/current/alertmanager.yml"),
    ],
)
def test_the_real_programs_accept_their_files(case: str, image: str, file: str, command: str, tmp_path: Path):
    of = CASES[case]
    files = {file: texts(of)[file], "rules.yml": prometheus.rules(), **alertmanager.secrets(of), "store-ca.pem": ""}
    said = run(image, files, tmp_path, *command.split())
    assert said.returncode == 0, said.stdout + said.stderr
    assert not re.search(r"(?i)deprecat|warn", said.stdout + said.stderr), said.stdout + said.stderr
    files[file] += "no_such_option: true\n"
    assert run(image, files, tmp_path, *command.split()).returncode != 0, "the check takes anything"


def test_each_rule_fires_where_it_should_and_is_silent_where_not(tmp_path: Path):
    tests = (HERE / "rules" / "prometheus.test.yml").read_text()
    files = {"rules.yml": prometheus.rules(), "test.yml": tests}
    said = run("prometheus", files, tmp_path, "promtool", "test", "rules", "/config/current/test.yml")
    assert said.returncode == 0, said.stdout + said.stderr
    names = _alerts(prometheus.rules())
    assert {name for name in names if not re.search(rf"\b{name}\b", tests)} == set(), "a rule without a test"


@pytest.mark.parametrize("rules", [prometheus.rules(), loki.rules()], ids=["prometheus", "loki"])
def test_each_alert_says_what_is_wrong_how_bad_and_what_to_do(rules: str):
    for rule in _rules(rules):
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert rule["annotations"]["summary"].endswith(".")
        assert len(rule["annotations"]["do"]) > 20


def test_news_waits_for_more_of_its_kind_and_trouble_does_not(tmp_path: Path):
    files = {"alertmanager.yml": alertmanager.config(CASES["everything"])}
    files |= alertmanager.secrets(CASES["everything"])
    ask = ["amtool", "config", "routes", "test", "--config.file=/config/current/alertmanager.yml"]
    for severity, receiver in (("critical", "operator"), ("warning", "operator"), ("info", "news")):
        assert run("alertmanager", files, tmp_path, *ask, f"severity={severity}").stdout.strip() == receiver
    # What came and went between two messages would never be told.
    config = yaml.safe_load(files["alertmanager.yml"])
    [news] = [route for route in config["route"]["routes"] if route["receiver"] == "news"]
    [shortest] = {
        re.findall(r"\[(\w+)\]", rule["expr"])[0] for rule in _rules(loki.rules()) if rule["alert"] == "NewPeer"
    }
    assert _seconds(news["group_wait"]) + _seconds(news["group_interval"]) <= _seconds(shortest)


def test_who_tried_an_admins_route_is_not_told_again_with_the_next_one():
    config = yaml.safe_load(alertmanager.config(CASES["plain"]))["route"]
    [own] = [route for route in config["routes"] if route["matchers"] == ['alertname="AdminRouteTried"']]
    assert own == {"receiver": "operator", "matchers": own["matchers"], "group_by": ["alertname", "principal"]}
    [tried] = [rule for rule in _rules(loki.rules()) if rule["alert"] == "AdminRouteTried"]
    assert "sum by (principal)" in tried["expr"]
    assert tried["labels"]["severity"] != "info", "news comes before it, and would take it"


def _seconds(text: str) -> int:
    return int(text[:-1]) * {"s": 1, "m": 60, "h": 3600}[text[-1]]


def _rules(rules: str) -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(rules)["groups"] for rule in group["rules"]]


def _alerts(rules: str) -> list[str]:
    return [rule["alert"] for rule in _rules(rules)]


def test_the_page_about_alerts_names_each_of_them():
    page = (paths.CHECKOUT / "docs" / "observability.md").read_text()
    table = set(
        re.findall(r"[A-Z][a-z]+(?:[A-Z][a-z]+)+", page.partition("## What you are told")[2].partition("\n## ")[0])
    )
    assert table == {*_alerts(prometheus.rules()), *_alerts(loki.rules())}


def test_no_secret_is_in_a_config():
    shown = "\n".join(texts(CASES["everything"]).values())
    assert "s3cret" not in shown
    hidden = {**alertmanager.secrets(CASES["everything"]), "credentials": loki.credentials(CASES["everything"])}
    assert all("s3cret" in text for text in hidden.values())
    assert alertmanager.secrets(CASES["plain"]) == {}


def test_every_file_says_what_made_it():
    made = [*texts(CASES["plain"]).values(), prometheus.rules(), loki.rules()]
    assert all(text.startswith("# made by ollama-fortress") for text in made)


def test_grafana_calls_nobody_and_believes_the_gateway_alone():
    of = CASES["plain"]
    config = configparser.ConfigParser(interpolation=None)
    config.read_string(grafana.files(of, of.plan)["grafana.ini"])
    assert config["auth.proxy"]["whitelist"] == str(of.plan.watch.gateway)
    assert config["server"]["http_addr"] == str(of.plan.watch.grafana)
    for section in ("auth.anonymous", "auth.basic", "analytics", "snapshots", "unified_alerting"):
        assert config[section]["enabled"] == "false", section
    for key in ("reporting_enabled", "check_for_updates", "check_for_plugin_updates"):
        assert config["analytics"][key] == "false"
    assert config["plugins"]["preinstall_disabled"] == "true", "on a read-only root it would lose its data sources"
    assert config["users"]["auto_assign_org_role"] == "Viewer"
    sources = yaml.safe_load(grafana.files(of, of.plan)["provisioning/datasources/fortress.yaml"])["datasources"]
    assert [row["uid"] for row in sources] == ["prometheus", "loki", "alertmanager"]
    assert not any(row["editable"] for row in sources)


def test_what_a_dashboard_asks_is_among_grafanas_data_sources():
    """Of another uid, a panel says "data source was not found" and stays empty; the others go on."""
    of = CASES["plain"]
    sources = yaml.safe_load(grafana.files(of, of.plan)["provisioning/datasources/fortress.yaml"])["datasources"]
    asked = {
        (each["type"], each["uid"])
        for text in dashboards.files().values()
        for each in re.findall(r'"datasource": (\{[^}]*\})', text)
        for each in [json.loads(each)]
    }
    assert asked == {("prometheus", "prometheus"), ("loki", "loki")}
    assert asked <= {(row["type"], row["uid"]) for row in sources}


def test_labels_are_few_and_no_clients_words():
    config = yaml.safe_load(collector.config(CASES["plain"].plan))
    for name, receiver in config["receivers"].items():
        assert set(receiver["resource"]) == {"service.name", "kind"}, name
    assert [kind for kind, _, _ in collector.TRAILS] == ["audit", "command", "tunnel", "login"]


@pytest.mark.parametrize("field", ["user", "server"])
def test_a_receiver_cannot_break_out_of_its_place(field: str):
    broken = TOLD["email"] | {field: 'x"\nroute: {}'}
    with pytest.raises((ConfigRefused, NotInItsPlace)):
        alertmanager.config(settings({"form": "full", "alerts": {"email": broken}}))


@pytest.mark.parametrize(
    ("observability", "sentence"),
    [
        (
            {"audit_file_mb": 700},
            "audit_files_mb is 1024, but one audit file may have 700 MB.*Write audit_files_mb: 1400 or more, or "
            "audit_file_mb: 512 or less",
        ),
        ({"form": "lite", "alerts": {"webhook": TOLD["webhook"]}}, "alerts is written, but form is lite.*form: full"),
        ({"form": "off", "retention": {"audit_days": 3}}, "retention is written, but form is off"),
        ({"object_storage": STORE}, "object_storage is written, but form is lite"),
        ({"form": "full", "alerts": {}}, "alerts names nobody; write email, webhook, telegram or ntfy"),
        ({"form": "full", "retention": {"audit_days": 0}}, "retention.audit_days.*greater than or equal to 1"),
        ({"form": "full", "object_storage": STORE | {"endpoint": "https://minio"}}, "without https://"),
        ({"form": "full", "alerts": {"webhook": {"url": "hooks.example.com"}}}, "begins with https://.*config set"),
        ({"form": "full", "alerts": {"telegram": {"bot_token": "x", "chat_id": 1}}}, "bot_token is not a token"),
        ({"form": "full", "alert": {}}, "did you mean 'alerts'"),
        ("ful", "Input should be 'off', 'lite' or 'full'"),
    ],
)
def test_a_refusal_says_what_to_write(observability: Any, sentence: str):
    with pytest.raises(ConfigRefused, match=sentence) as refused:
        settings(observability)
    assert "s3cret" not in str(refused.value)


def test_what_pulumi_has_encrypted_is_taken_by_the_commands_that_read_no_secret():
    assert settings({"form": "full", "alerts": {"webhook": {"url": "(encrypted)"}}}).observability.alerts
