"""The Gateway with nothing written down: no audit line, no figures, no tokens counted. They cost the difference.

The deployed configuration and policy, but for two modules that do nothing here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench import scene
from tests.deployment import Deployment

OBSERVE = """\
const none = () => {};
export default {
    FILE: '', MISSING: '', alone: () => false, beat: none, chunk: none, ended: none, shut: () => null, write: none,
};
"""
USAGE = """\
export default { count: () => {}, meter: () => ({}), pass: (of, data) => data, tokens: () => [0, 0] };
"""
_SCRIPT = """\
umask 077
cp -rL /config/current /tmp/current
chmod -R u+w /tmp/current
cd /tmp/current
sed -i "s|/config/current|/tmp/current|g; s|$EDGE|$OWN|g; s|listen $WATCH:|listen 127.0.0.1:|" ./*.conf
printf %s "$OBSERVE" > observe.js
printf %s "$USAGE" > usage.js
exec nginx -c /tmp/current/nginx.conf -g "daemon off;"
"""


@contextmanager
def gateway(deployment: Deployment, user: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Such a gateway that runs. Yields: its container, and the way to it, which is the Gateway's elsewhere."""
    plan = scene.config(deployment).plan
    words = {
        "EDGE": plan.edge.gateway,
        "OWN": plan.edge.cidr.network_address + scene.UNSEEN_ADDRESS,
        "WATCH": plan.watch.gateway,
        "OBSERVE": OBSERVE,
        "USAGE": USAGE,
    }
    more = [word for name in ("log", "lib") for word in ("--tmpfs", f"/var/{name}/gateway:uid=101,gid=101")]
    more += [word for name, value in words.items() for word in ("--env", f"{name}={value}")]
    made = scene.beside_the_gateway(deployment, scene.UNSEEN_ADDRESS, "sh", "-c", _SCRIPT, more=more)
    with made as (container, address):
        yield container, scene.through(deployment, user) | {"address": address}
