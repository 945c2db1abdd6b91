"""What one user needs to connect: tunnel files, the authority, the key, a wrapper and a page that says how."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from render import wireguard
from render.syntax import FILTERS, NotInItsPlace
from settings import StackSettings, WireguardSettings
from settings.base import EMAIL, MODEL_NAME

PEM = r"(-----BEGIN CERTIFICATE-----\n([A-Za-z0-9+/=]+\n)+-----END CERTIFICATE-----\n?)+"


@dataclass(frozen=True)
class BundleDevice:
    name: str
    private_key: str | None
    psk: str
    ip4: IPv4Address
    ip6: IPv6Address


def files(
    settings: StackSettings,
    user: str,
    *,
    api_key: str,
    ca_pem: str,
    server_public_key: str,
    devices: Sequence[BundleDevice],
) -> dict[str, str]:
    """File name -> text.

    Raises: NotInItsPlace for a value that would mean something else in one of the files.
    """
    made = {
        f"wireguard-{FILTERS['name'](device.name)}.conf": wireguard.client(
            settings,
            private_key=device.private_key,
            psk=device.psk,
            server_public_key=server_public_key,
            ip4=device.ip4,
            ip6=device.ip6,
        )
        for device in devices
    }
    return made | {
        "api_key": f"{FILTERS['hex'](api_key)}\n",
        "ca.pem": _checked(PEM, ca_pem, "a chain of certificates"),
        "fortress-run": _run(settings),
        "README.md": _readme(settings, user, devices),
    }


def _checked(pattern: str, text: str, what: str) -> str:
    if not re.fullmatch(pattern, text):
        raise NotInItsPlace(f"a value is not {what}, and would break out of its place in the bundle")
    return text


def _of(settings: StackSettings) -> WireguardSettings:
    assert settings.wireguard is not None, "settings without a wireguard section never get here"
    return settings.wireguard


def _run(settings: StackSettings) -> str:
    domain, own = FILTERS["domain"](settings.domain), _of(settings)
    return f"""#!/bin/sh
# Runs one command with this bundle's endpoint, key and authority: ./fortress-run ollama run tiny
# Nothing is installed, and no setting outlives the command.
set -eu
if [ "$#" -eq 0 ]; then
    echo "usage: $0 COMMAND [ARGUMENT...]   for example: $0 ollama list" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
url='{settings.url(domain)}'
inside='{domain},{own.server4},{own.server6}'
for file in api_key ca.pem; do
    if [ ! -r "$here/$file" ]; then
        echo "$0: cannot read $here/$file; fetch the whole bundle again" >&2
        exit 1
    fi
done

# The authorities believed so far stay: a command may well talk to others too. First the file that this machine's
# owner chose, then where Debian, Fedora, openSUSE, and macOS with the BSDs and Alpine keep theirs.
cache=${{XDG_CACHE_HOME:-${{HOME:-/nonexistent}}/.cache}}/ollama-fortress
if ! (umask 077 && mkdir -p "$cache") 2> /dev/null || [ ! -w "$cache" ]; then
    cache=$(mktemp -d "${{TMPDIR:-/tmp}}/fortress-ca.XXXXXX")
fi
together=$cache/ca-$(cksum < "$here/ca.pem" | tr ' ' -).pem
authorities=''
for file in "${{SSL_CERT_FILE:-}}" /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt \
    /etc/ssl/ca-bundle.pem /etc/ssl/cert.pem; do
    if [ -n "$file" ] && [ -r "$file" ] && [ "$file" != "$together" ]; then
        authorities=$file
        break
    fi
done
if [ -z "$authorities" ]; then
    echo "$0: found no certificate authorities on this machine; the command will believe this bundle's only" >&2
fi
# Renamed into place whole: another fortress-run may be reading it.
fresh=$(mktemp "$together.XXXXXX")
{{
    if [ -n "$authorities" ]; then
        cat "$authorities"
        echo
    fi
    cat "$here/ca.pem"
}} > "$fresh"
mv -f "$fresh" "$together"

key=$(cat "$here/api_key")
export OLLAMA_HOST="$url"
export OLLAMA_API_KEY="$key"
export OPENAI_BASE_URL="$url/v1"
export OPENAI_API_BASE_URL="$url/v1" # as Open WebUI calls it
export OPENAI_API_KEY="$key"
export ANTHROPIC_BASE_URL="$url"
export ANTHROPIC_API_KEY="$key"
export SSL_CERT_FILE="$together"
export REQUESTS_CA_BUNDLE="$together"
export CURL_CA_BUNDLE="$together"
export NODE_EXTRA_CA_CERTS="$together"
# A proxy of the outside world knows no way into the tunnel.
export NO_PROXY="${{NO_PROXY:+$NO_PROXY,}}$inside"
export no_proxy="${{no_proxy:+$no_proxy,}}$inside"
# exec: the command gets the terminal, every signal, and its own exit code.
exec "$@"
"""


def _readme(settings: StackSettings, user: str, devices: Sequence[BundleDevice]) -> str:
    own, domain, user = _of(settings), FILTERS["domain"](settings.domain), FILTERS["name"](user)
    url = settings.url(domain)
    model = _checked(MODEL_NAME, settings.models[0].name if settings.models else "llama3.2:3b", "a model name")
    names = [FILTERS["name"](device.name) for device in devices]
    tunnels = "\n".join(f"- `wireguard-{name}.conf` (and its QR code) for the device `{name}`" for name in names)
    if any(device.private_key is None for device in devices):
        tunnels += "\n\nA file without a private key has no QR code: write the key into the device's own copy of it."
    cli = (
        f"./fortress-run ollama run {model}"
        if settings.users[user].keyless
        else "# The ollama CLI sends no key: ask your admin for `keyless: true`, or use one of the others."
    )
    hosts = f"{domain} {FILTERS['domain'](settings.browser_domain)}" if user in settings.browser_users else domain
    trust = _trust(settings, domain)
    return f"""# {user}: your way to {domain}

Keep this folder to yourself: it holds your keys.

## 1. The tunnel
{tunnels}

Each file is for one device at a time. WireGuard takes a tunnel's name from its file, at most 15 characters:
```sh
sudo install -m 600 wireguard-{names[0]}.conf /etc/wireguard/fortress.conf
sudo wg-quick up fortress
echo '{own.server4} {hosts}' | sudo tee -a /etc/hosts
```
Phone: scan the QR code with the WireGuard app. A phone cannot edit its hosts file: {trust["phone"]}

Instead of a line in every hosts file, your admin can give a name a public A record that points to {own.server4}, and
write that name as `domain:`. The address is a private one, so the record opens nothing. Some routers drop answers
with private addresses ("DNS rebind protection"): allow the name there.

## 2. The certificate
{trust["certificate"]}

- macOS: programs written in Go, the `ollama` CLI among them, ask only the keychain:
  `security add-trusted-cert -r trustRoot -k ~/Library/Keychains/login.keychain-db ca.pem`
- iPhone, iPad: open `ca.pem`, install the profile in Settings, then switch it on in General > About > Certificate
  Trust Settings. Safari and every app that leaves the decision to iOS believe it then.
- Android: Settings > Security > Install a certificate > CA certificate. Chrome and web apps installed from it believe
  it; Firefox after "Use third party CA certificates" in its secret settings; another app only where its makers
  allowed authorities of the user, and most did not.
{trust["refused"]}
## 3. Ask
```sh
# curl (the key goes by stdin, so that no list of processes shows it)
printf 'Authorization: Bearer %s\\n' "$(cat api_key)" |
    {trust["curl"]} -H @- {url}/api/generate -d '{{"model": "{model}", "prompt": "Hello"}}'
# ollama CLI
{cli}
# any program that takes its endpoint from the environment
./fortress-run python my_script.py
```
OpenAI SDK (`./fortress-run python`):
```python
from openai import OpenAI

for part in OpenAI().chat.completions.create(
    model="{model}", messages=[{{"role": "user", "content": "Hello"}}], stream=True
):
    print(part.choices[0].delta.content or "", end="", flush=True)
```
Continue (`config.yaml`):
```yaml
models:
  - name: fortress
    provider: openai
    model: "{model}"
    apiBase: "{url}/v1"
    apiKey: "<text of api_key>"
{trust["request_options"]}
```
{_page(settings, user)}Open WebUI: `./fortress-run open-webui serve`, or by hand a connection of type OpenAI
with the URL `{url}/v1` and the text of `api_key`.
"""


def _trust(settings: StackSettings, domain: str) -> dict[str, str]:
    """What the page says of the certificate: the private authority's, or one that the admin has brought."""
    by_address = settings.url(str(_of(settings).server4))
    if settings.gateway.certificate_file is None:
        return {
            "curl": "curl -N --cacert ca.pem",
            "phone": f"""write {by_address} wherever
this page says {settings.url(domain)}; the gateway answers to both.""",
            "certificate": """\
`ca.pem` is this server's own authority. `fortress-run` makes one command believe it, for as long as that runs.""",
            "refused": """\
- Where an app refuses: a public certificate for a public name (above), by `gateway: {certificate_file, key_file}`.
""",
            "request_options": """\
    requestOptions:
      caBundlePath: "<this folder>/ca.pem\"""",
        }
    return {
        "curl": "./fortress-run curl -N",
        "phone": f"""ask
your admin for the record below; {by_address} serves you only where the certificate names that address too.""",
        "certificate": """\
Your admin brought a certificate for this server. Where a public authority signed it, every program believes it, and the
rest of this part is not for you. Else `ca.pem` holds the authorities that came with it, and `fortress-run` makes one
command believe them beside the public ones, for as long as that runs.""",
        "refused": "",
        "request_options": """\
    # Only where no public authority signed the certificate:
    # requestOptions:
    #   caBundlePath: "<this folder>/ca.pem\"""",
    }


def _page(settings: StackSettings, user: str) -> str:
    """The page in the browser, for whoever may open it; else nothing."""
    if user not in settings.browser_users:
        return ""
    name, by_address, *_ = (f"https://{FILTERS['host'](host)}" for host in settings.browser_hosts)
    own = settings.users[user]
    if own.keyless:
        proof = "Your tunnel proves who you are: there is nothing to type."
    else:
        assert settings.login is not None, "without a provider only keyless users may open the page"
        provider = {"github": "GitHub", "google": "Google"}.get(settings.login.value, "your provider")
        proof = f"Sign in at {provider} as {_checked(EMAIL, own.email or '', 'an e-mail address')}."
    return f"""Browser, also on a phone: {name}, or {by_address} where that name is not known. {proof} The browser
must believe `ca.pem` (2.), unless your admin has a public certificate for this name.

"""
