"""What one user needs to connect: tunnel files, the authority, the key, a wrapper and a page that says how."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from render import wireguard
from settings import StackSettings


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
    """File name -> text."""
    made = {
        f"wireguard-{device.name}.conf": wireguard.client(
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
        "api_key": f"{api_key}\n",
        "ca.pem": ca_pem,
        "fortress-run": _run(settings),
        "README.md": _readme(settings, user, devices),
    }


def _url(settings: StackSettings, host: str) -> str:
    port = settings.wireguard.relay_port if settings.wireguard else 443
    return f"https://{host}" if port == 443 else f"https://{host}:{port}"


def _run(settings: StackSettings) -> str:
    url = shlex.quote(_url(settings, settings.domain))
    return f"""#!/bin/sh
# Runs one command with this bundle's endpoint, key and authority: ./fortress-run ollama run tiny
# Nothing is installed, and no setting outlives the command.
set -eu
if [ "$#" -eq 0 ]; then
    echo "usage: $0 COMMAND [ARGUMENT...]   for example: $0 ollama list" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
url={url}
authorities=''
for file in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem; do
    if [ -r "$file" ]; then
        authorities=$file
        break
    fi
done
umask 077
together=$(mktemp "${{TMPDIR:-/tmp}}/fortress-ca.XXXXXX")
trap 'rm -f "$together"' EXIT
trap 'exit 130' INT TERM
# The system's authorities stay: a command may well talk to others too.
{{
    if [ -n "$authorities" ]; then cat "$authorities"; fi
    cat "$here/ca.pem"
}} > "$together"
OLLAMA_HOST=$url
OPENAI_BASE_URL=$url/v1
OPENAI_API_KEY=$(cat "$here/api_key")
ANTHROPIC_BASE_URL=$url
ANTHROPIC_API_KEY=$OPENAI_API_KEY
SSL_CERT_FILE=$together
REQUESTS_CA_BUNDLE=$together
CURL_CA_BUNDLE=$together
NODE_EXTRA_CA_CERTS=$here/ca.pem
export OLLAMA_HOST OPENAI_BASE_URL OPENAI_API_KEY ANTHROPIC_BASE_URL ANTHROPIC_API_KEY
export SSL_CERT_FILE REQUESTS_CA_BUNDLE CURL_CA_BUNDLE NODE_EXTRA_CA_CERTS
"$@"
"""


def _readme(settings: StackSettings, user: str, devices: Sequence[BundleDevice]) -> str:
    own = settings.wireguard
    assert own is not None, "settings without a wireguard section never get here"
    url, by_address = _url(settings, settings.domain), _url(settings, str(own.server4))
    model = settings.models[0].name if settings.models else "llama3.2:3b"
    tunnels = "\n".join(
        f"- `wireguard-{device.name}.conf` (and its QR code) for the device `{device.name}`" for device in devices
    )
    keyless = settings.users[user].keyless
    cli = (
        f"./fortress-run ollama run {model}"
        if keyless
        else "# The ollama CLI sends no key: ask your admin for `keyless: true`, or use one of the others."
    )
    return f"""# {user}: your way to {settings.domain}

Keep this folder to yourself: it holds your keys.

## 1. The tunnel
{tunnels}

Computer: `sudo wg-quick up ./wireguard-{devices[0].name}.conf`, and add `{own.server4} {settings.domain}` to the
hosts file. Phone: scan the QR code with the WireGuard app. Each file is for one device at a time.

## 2. The certificate
`ca.pem` is this server's own authority. `fortress-run` makes one command believe it. A phone cannot edit its hosts
file: use {by_address} there. iOS and Android let you install a certificate authority, but an Android app believes it
only where its makers allow that (browsers do, many apps do not).

## 3. Ask
```sh
# curl
curl --cacert ca.pem -H "Authorization: Bearer $(cat api_key)" {url}/api/generate -d '{{"model": "{model}", "prompt": "Hello"}}'
# ollama CLI
{cli}
# any program that takes its endpoint from the environment
./fortress-run python my_script.py
```
```python
# OpenAI SDK (run it with ./fortress-run python)
from openai import OpenAI
for part in OpenAI().chat.completions.create(model="{model}", messages=[{{"role": "user", "content": "Hello"}}], stream=True):
    print(part.choices[0].delta.content or "", end="", flush=True)
```
Continue (`config.yaml`):
```yaml
models:
  - {{name: fortress, provider: openai, model: "{model}", apiBase: "{url}/v1", apiKey: "<text of api_key>",
     requestOptions: {{caBundlePath: "<folder>/ca.pem"}}}}
```
Open WebUI: connection type OpenAI, URL `{url}/v1`, key: text of `api_key`; start it with `SSL_CERT_FILE` as above.
"""
