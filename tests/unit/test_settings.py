"""What the stack config accepts, and what it says when it refuses."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settings import Access, ConfigRefused, StackSettings, load
from settings.timezones import names, offsets

SMALLEST: dict[str, Any] = {
    "ollama-fortress:users": {"alice": {}},
    "ollama-fortress:wireguard": {"endpoint": "vpn.example.com:51820"},
}


def settings(**values: Any) -> StackSettings:
    return load("test", SMALLEST | {f"ollama-fortress:{key}": value for key, value in values.items()})


def refusal(**values: Any) -> str:
    with pytest.raises(ConfigRefused) as caught:
        settings(**values)
    return str(caught.value)


def test_the_smallest_config_is_two_lines_and_wireguard():
    built = settings()
    assert built.access == (Access.WIREGUARD,)
    assert [model.tagged for model in built.models] == ["tiny:latest"]
    assert [device.name for device in built.users["alice"].device_list()] == ["default"]


def test_values_may_arrive_as_the_json_text_that_pulumi_hands_over():
    config = {key: json.dumps(value) for key, value in SMALLEST.items()} | {"ollama-fortress:protect": "false"}
    assert load("test", config) == settings(protect=False)


def test_keys_of_other_namespaces_are_left_alone():
    assert load("test", SMALLEST | {"docker:host": "unix:///x", "pulumi:tags": "{}"}) == settings()


def test_the_default_limits_are_those_of_the_design():
    limits = settings().limits_of("alice")
    assert (limits.requests_per_minute, limits.burst, limits.concurrent) == (10, 20, 2)


def test_a_user_overrides_only_the_limits_it_names():
    built = settings(users={"bob": {"limits": {"requests_per_minute": 30}}}, limits={"concurrent": 5})
    assert (built.limits_of("bob").requests_per_minute, built.limits_of("bob").concurrent) == (30, 5)


def test_a_budget_is_the_users_own_or_the_stacks_or_none():
    built = settings(users={"a": None, "b": {"limits": {"tokens_per_day": 5}}}, limits={"tokens_per_day": 9})
    assert (built.limits_of("a").tokens_per_day, built.limits_of("b").tokens_per_day) == (9, 5)
    assert built.limits_of("b").tokens_per_month is None


@pytest.mark.parametrize("name", [*names()[::40], "UTC", "Africa/Casablanca", "America/Nuuk"])
def test_every_time_zone_has_offsets_in_order_of_time(name: str):
    rows = offsets(name)
    assert list(rows) == sorted(set(rows))
    assert len(rows) < 100
    assert all(abs(ahead) < 15 * 3600 for _, ahead in rows)


@pytest.mark.parametrize(
    "origin",
    ["https://chat.example.com", "http://localhost:3000", "http://[::1]:8080", "tauri://localhost", "http://a:443"],
)
def test_an_origin_is_written_as_the_browser_sends_it(origin: str):
    assert settings(gateway={"cors_origins": [origin]}).gateway.cors_origins == (origin,)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"user": {}}, "unknown key 'user'; did you mean 'users'?"),
        ({"users": {"a": {"rolle": "admin"}}}, "users.a.rolle: unknown key 'rolle'; did you mean 'role'?"),
        ({"gateway": {"read_timeout": 900}}, "did you mean 'read_timeout_s'?"),
        ({"users": {"a": {"role": "root"}}}, "users.a.role"),
        ({"gateway": {"connect_timeout_s": "soon"}}, "gateway.connect_timeout_s"),
        ({"access": "tailscale"}, "access method 'tailscale' is not built yet; write 'wireguard'"),
        ({"access": "carrier-pigeon"}, "access"),
        ({"domain": "a.example.com\nlisten 80;"}, "is not a domain name: write it like"),
        ({"domain": "A.example.com"}, "in lower case"),
        ({"users": {"a": {"previous_epoch": "1"}}}, "the same word as epoch, so nothing would be renewed"),
        ({"users": {"a": {"devices": [{"name": "x", "previous_epoch": "1"}]}}}, "the same word as epoch"),
        ({"gateway": {"longest_answer_s": 60}}, "Set it to at least 900"),
        ({"pki": {"previous_ca_epoch": "1"}}, "the same word as ca_epoch, so nothing would be renewed"),
        (
            {"users": {"a": {"devices": [{"name": "x", "epoch": "3", "previous_epoch": "1"}]}}},
            "device 'x': previous_epoch is '1' and epoch is '3': both give the device the same tunnel address, so the "
            'two keys cannot be valid together. Write epoch: "4"',
        ),
        (
            {"users": {"a": {"devices": [{"name": "x", "epoch": "summer", "previous_epoch": "1"}]}}},
            'Write epoch: "summer-1"',
        ),
        (
            {"users": {"a": {"devices": [{"name": "x", "epoch": "2", "previous_epoch": "1", "address": "10.66.9.9"}]}}},
            "its address 10.66.9.9 is written down, and old and new key cannot share it",
        ),
        (
            {
                "users": {
                    "a": {"devices": [{"name": "x", "epoch": "2", "previous_epoch": "1", "public_key": "A" * 43 + "="}]}
                }
            },
            "the device brings its own public_key, and one key is one peer",
        ),
        *(
            ({"gateway": {"cors_origins": [origin]}}, "is not an origin: write it as the browser sends it")
            for origin in (
                *("*", "null", "", "chat.example.com", "https://", "https://*.example.com", "https://a.example/"),
                *(
                    "https://A.example",
                    "https://a.example:443",
                    "http://a.example:80",
                    "https://a.example\nx",
                    "file://",
                ),
                *("https://u@a.example", "https://a.example?x", "https://a.example:99999999", 'https://a"; evil'),
            )
        ),
        ({"models": [{"name": "../../etc/passwd"}]}, "is not a model name"),
        ({"models": [{"name": "gpt-oss:120b-cloud"}]}, "is a cloud model"),
        ({"models": [{"name": "x", "source": "x.bin"}]}, "neither 'builtin' nor a path ending in .gguf"),
        ({"models": [{"name": "x"}, {"name": "x:latest"}]}, "is declared twice"),
        ({"users": {"a": {"email": "x@y.z"}, "b": {"email": "x@y.z"}}}, "'a' and 'b' have the same e-mail"),
        ({"users": {"a": {"devices": ["x", "x"]}}}, "device 'x' is named twice"),
        ({"users": {"a": {"devices": [{"name": "x", "public_key": "AAAA"}]}}}, "no WireGuard public key"),
        (
            {
                "users": {
                    "a": {"devices": [{"name": "x", "address": "10.66.9.9"}, {"name": "y", "address": "10.66.9.9"}]}
                }
            },
            "have the same tunnel address 10.66.9.9",
        ),
        ({"users": {"a b": {}}}, "is not a name"),
        ({"users": {}}, "users"),
        *(
            ({"network": {"base": base}}, f"{base} is not a private /20; write one like")
            for base in ("172.31.0.0/24", "127.0.16.0/20", "169.254.16.0/20", "198.18.0.0/20", "8.8.0.0/20")
        ),
        *(
            ({"wireguard": {"endpoint": "a:1", "subnet4": subnet4}}, "write a private range of /20 or wider")
            for subnet4 in ("127.0.0.0/8", "0.0.0.0/0", "10.0.0.0/7", "169.254.0.0/16", "240.0.0.0/8")
        ),
        *(
            ({"wireguard": {"endpoint": "a:1", "subnet6": subnet6}}, f"{subnet6} is not a private /64; write one like")
            for subnet6 in ("fe80::/64", "2001:db8::/64", "fd00::/48")
        ),
        *(
            ({"wireguard": {"endpoint": endpoint}}, "is an IPv6 address, but the tunnel's port is published on IPv4")
            for endpoint in ("[2001:db8::1]:51820", "[::::]:51820", "::1:51820", "[::ffff:192.0.2.1]:1")
        ),
        *(
            ({"wireguard": {"endpoint": f"{host}:1"}}, "has no IPv4 address before its port; write it like 192.0.2.1")
            for host in ("999.0.0.1", "1.2.3", "1.2.3.4.5", "51820")
        ),
        ({"wireguard": {"endpoint": "a..b:1"}}, "is not host:port"),
        (
            {"wireguard": {"endpoint": "a:1", "relay_port": 8443}, "users": {"a": {"keyless": True}}, "browser": {}},
            "the API's port at the tunnel address (wireguard.relay_port); write another, like 9443",
        ),
        (
            {
                "users": {
                    "a": {"devices": [{"name": "x", "public_key": "A" * 43 + "="}]},
                    "b": {"devices": [{"name": "y", "public_key": "A" * 43 + "="}]},
                }
            },
            "devices a/x and b/y have the same public_key, and one key is one peer",
        ),
        ({"models": [{"name": "Tiny"}, {"name": "tiny:latest"}]}, "is declared twice"),
        (
            {"models": [{"name": "a/b:c"}, {"name": "a-b:c"}]},
            "models 'a/b:c' and 'a-b:c' would have one name in Pulumi's state",
        ),
        *(
            ({"users": {"a": {"models": [pattern]}}}, f"Leave it out: write {instead!r}, or '*' for every model")
            for pattern, instead in (
                ("registry.ollama.ai/*", "library/*"),
                ("registry.ollama.ai/library/*", "library/*"),
                ("Registry.Ollama.AI/me/x:*", "me/x:*"),
            )
        ),
        ({"ollama": {"keep_alive": "5 min"}}, "is not a time that Ollama keeps a model loaded: write 30s, 5m, 2h"),
        ({"host": {"docker_socket": "docker.sock"}}, "is not a socket's path: write it like /var/run/docker.sock"),
        *(
            ({"host": {"ssh": {"address": "a", "host_key": "ssh-ed25519 A"} | ssh}}, says)
            for ssh, says in (
                ({"user": "Bob"}, "host.ssh.user: 'Bob' is not a login name: write lower-case letters"),
                ({"address": "root@a"}, "host.ssh.address: 'root@a' is not a host: write its name or address"),
            )
        ),
        ({"network": {"base": "10.66.16.0/20"}}, "overlaps network.base"),
        ({"wireguard": {"endpoint": "nowhere"}}, "is not host:port"),
        ({"wireguard": {"endpoint": "a:0"}}, "no valid port"),
        ({"wireguard": {"endpoint": "a:1", "subnet4": "10.0.0.0/24"}}, "write a private range of /20 or wider"),
        ({"wireguard": {"endpoint": "a:1", "subnet6": "fe80::1%x\n}/64"}}, "wireguard.subnet6"),
        ({"wireguard": None}, "Write ollama-fortress:wireguard: {endpoint:"),
        ({"gateway": {"certificate_file": "x.pem"}}, "belong together"),
        ({"gateway": {"queue_per_user": 65}}, "queue_per_user is 65, above queue_total (64)"),
        ({"gateway": {"read_timeout_s": 60}}, "below ollama.load_timeout_s"),
        *(({"ollama": {"gpus": gpus}}, "it names no GPU; write none, all, or a list") for gpus in ("some", [], [0], 1)),
        ({"ollama": {"gpus": ["0 1"]}}, "'0 1' is not a GPU: write its number or UUID as `nvidia-smi -L` shows it"),
        ({"timezone": "Europe/Berln"}, "'Europe/Berln' is not a time zone; write an IANA name like 'Europe/Berlin'"),
        ({"timezone": "../zones"}, "is not a time zone"),
        ({"timezone": ""}, "is not a time zone"),
        ({"limits": {"tokens_per_day": 0}}, "limits.tokens_per_day"),
        ({"users": {"a": {"limits": {"tokens_per_moon": 1}}}}, "did you mean 'tokens_per_month'?"),
    ],
)
def test_a_refusal_names_the_setting_and_the_way_out(values: dict[str, Any], says: str):
    assert says in refusal(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"network": {"base": "100.64.16.0/20"}},
        {"wireguard": {"endpoint": "192.0.2.1:51820", "subnet4": "100.64.0.0/10", "subnet6": "fc00:1:2:3::/64"}},
        {"wireguard": {"endpoint": "vpn-1.example.com:51820", "subnet4": "10.0.0.0/8"}},
        {"models": [{"name": "a/b:c"}, {"name": "a-b:d"}]},
        {"users": {"a": {"models": ["registry.ollama.ai/library/tiny", "library/*", "hf.co/*", "*"]}}},
        {"host": {"ssh": {"address": "2001:db8::1", "user": "_deploy-1", "host_key": "ssh-ed25519 A"}}},
        {"ollama": {"keep_alive": "-1", "gpus": ["0", "GPU-1"]}},
    ],
)
def test_what_lies_beside_a_refusal_is_taken(values: dict[str, Any]):
    assert settings(**values)


def test_a_refusal_never_quotes_a_value_of_a_wrong_type():
    assert "hunter2" not in refusal(users={"a": {"limits": "hunter2"}})


@given(st.text(min_size=1, max_size=40))
def test_no_domain_with_a_character_of_config_syntax_is_accepted(text: str):
    try:
        built = settings(domain=text)
    except ConfigRefused:
        return
    assert not set(built.domain) & set(" \t\r\n;{}$\"'\\#"), built.domain
