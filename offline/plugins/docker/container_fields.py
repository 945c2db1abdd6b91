"""docker.Container as data: its properties, which of them a living container can change, and what is refused."""

from offline.plugins.docker.engine import LABELS
from offline.plugins.provider import UNKNOWN
from offline.plugins.schema import Field

META = (
    '{"e2bfb730-ecaa-11e6-8f88-34363bc7c4c0":'
    '{"create":1200000000000,"delete":1200000000000,"update":1200000000000},"schema_version":"2"}'
)
_RATE = {"path": Field(), "rate": Field()}
_OFF = Field(made=False, preview=False)

FIELDS = {
    "attach": _OFF,
    "bridge": Field(preview=UNKNOWN, made="", taken=False),
    "capabilities": Field(
        "one",
        {"adds": Field("set", made=[], preview=[], raw="add")}
        | {"drops": Field("set", made=[], preview=[], raw="drop")},
    ),
    "cgroupParent": Field(taken=False),
    "cgroupnsMode": Field(),
    "command": Field("list", preview=UNKNOWN),
    "containerLogs": Field(preview=UNKNOWN, taken=False),
    "containerReadRefreshTimeoutMilliseconds": Field(default=15000),
    "cpuPeriod": Field(taken=False),
    "cpuQuota": Field(taken=False),
    "cpuSet": Field(made=""),
    "cpuShares": Field(made=0),
    "cpus": Field(),
    "destroyGraceSeconds": Field(),
    "deviceReadBps": Field("row set", _RATE, made=[], preview=[], taken=False),
    "deviceReadIops": Field("row set", _RATE, made=[], preview=[], taken=False),
    "deviceRequests": Field("rows", made=[], preview=[], taken=False),
    "deviceWriteBps": Field("row set", _RATE, made=[], preview=[], taken=False),
    "deviceWriteIops": Field("row set", _RATE, made=[], preview=[], taken=False),
    "devices": Field(
        "row set",
        {"containerPath": Field(made="", preview=""), "hostPath": Field(), "permissions": Field(made="", preview="")},
        made=[],
        preview=[],
    ),
    "dns": Field("set"),
    "dnsOpts": Field("set", taken=False),
    "dnsSearches": Field("set", taken=False, raw="dns_search"),
    "domainname": Field(made="", taken=False),
    "entrypoints": Field("list", preview=UNKNOWN, made=[], raw="entrypoint"),
    "envs": Field("set", preview=UNKNOWN, made=[], raw="env"),
    "exitCode": Field(preview=UNKNOWN, taken=False),
    "gpus": Field(),
    "groupAdds": Field("set", raw="group_add"),
    "healthcheck": Field(
        "one",
        {
            "interval": Field(default="0s"),
            "retries": Field(made=0, preview=0),
            "startInterval": Field(default="0s"),
            "startPeriod": Field(default="0s"),
            "tests": Field("list", raw="test"),
            "timeout": Field(default="0s"),
        },
        preview=UNKNOWN,
    ),
    "hostname": Field(preview=UNKNOWN),
    "hosts": Field("row set", {"host": Field(), "ip": Field()}, made=[], preview=[], raw="host"),
    "image": Field(),
    "init": Field(preview=UNKNOWN, made=False),
    "ipcMode": Field(preview=UNKNOWN, taken=False),
    "labels": Field(LABELS.kind, LABELS.fields, preview=UNKNOWN, made=[]),
    "logDriver": Field(preview=UNKNOWN),
    "logOpts": Field("map"),
    "logs": _OFF,
    "maxRetryCount": Field(made=0),
    "memory": Field(made=0),
    "memoryReservation": Field(made=0, preview=0, taken=False),
    "memorySwap": Field(made=0),
    "mounts": Field(
        "row set",
        {
            "bindOptions": Field("one", {"propagation": Field(made="", preview="")}),
            "readOnly": Field(read=False),
            "source": Field(made="", preview=""),
            "target": Field(),
            "tmpfsOptions": Field("one", {"mode": Field(), "sizeBytes": Field()}),
            "type": Field(),
            "volumeOptions": Field("one", taken=False),
        },
        made=[],
        preview=[],
    ),
    "mustRun": Field(default=True),
    "name": Field(),
    "networkDatas": Field(
        "rows",
        {
            "gateway": Field(),
            "globalIpv6Address": Field(),
            "globalIpv6PrefixLength": Field(),
            "ipAddress": Field(),
            "ipPrefixLength": Field(),
            "ipv6Gateway": Field(),
            "macAddress": Field(),
            "networkName": Field(),
        },
        preview=UNKNOWN,
        made=[],
        raw="network_data",
        taken=False,
    ),
    "networkMode": Field(default="bridge"),
    "networksAdvanced": Field(
        "row set",
        {
            "aliases": Field("set", made=[], preview=[]),
            "driverOpts": Field("set", made=[], preview=[], taken=False),
            "gwPriority": Field(read=0, taken=False),
            "ipv4Address": Field(made="", preview=""),
            "ipv6Address": Field(made="", preview=""),
            "linkLocalIps": Field("set", made=[], preview=[], taken=False),
            "macAddress": Field(made="", preview="", taken=False),
            "name": Field(),
        },
        made=[],
        preview=[],
    ),
    "pidMode": Field(),
    "platform": Field(preview=UNKNOWN, made="linux", taken=False),
    "ports": Field(
        "rows",
        {
            "external": Field(),
            "internal": Field(),
            "ip": Field(default="0.0.0.0"),  # noqa: S104 - the official plugin's default; the program names an address
            "protocol": Field(default="tcp"),
        },
        made=[],
        preview=[],
    ),
    "privileged": Field(made=False, taken=False),
    "publishAllPorts": Field(made=False, taken=False),
    "readOnly": _OFF,
    "removeVolumes": Field(default=True),
    "restart": Field(default="no"),
    "rm": _OFF,
    "runtime": Field(preview=UNKNOWN, taken=False),
    "securityOpts": Field("set", preview=UNKNOWN, made=[]),
    "shmSize": Field(preview=UNKNOWN),
    "start": Field(default=True),
    "stdinOpen": Field(made=False, preview=False, taken=False),
    "stopSignal": Field(preview=UNKNOWN, made=""),
    "stopTimeout": Field(preview=UNKNOWN, made=0),
    "storageOpts": Field("map", taken=False),
    "sysctls": Field("map"),
    "tmpfs": Field("map"),
    "tty": Field(made=False, preview=False, taken=False),
    "ulimits": Field("row set", {"hard": Field(), "name": Field(), "soft": Field()}, made=[], preview=[], raw="ulimit"),
    "uploads": Field("row set", made=[], preview=[], raw="upload", taken=False),
    "user": Field(made=""),
    "usernsMode": Field(made="", taken=False),
    "volumes": Field(
        "row set",
        {
            "containerPath": Field(made="", preview=""),
            "fromContainer": Field(made="", preview="", taken=False),
            "hostPath": Field(made="", preview=""),
            "readOnly": Field(read=False),
            "selinuxRelabel": Field(made="", preview="", taken=False),
            "volumeName": Field(made="", preview=""),
        },
        made=[],
        preview=[],
    ),
    "wait": _OFF,
    "waitTimeout": Field(default=60),
    "workingDir": Field(made=""),
}

LIVE = ("memory", "memorySwap", "restart", "maxRetryCount", "cpuShares", "cpuSet")
"""Changed in a running container, and read back from it."""
KEPT = (
    *LIVE,
    *("mustRun", "attach", "logs", "rm", "start", "wait", "waitTimeout", "removeVolumes", "destroyGraceSeconds"),
    *("containerReadRefreshTimeoutMilliseconds", "memoryReservation", "cpuPeriod", "cpuQuota"),
    *("healthcheck", "tmpfs", "init"),
)
"""Properties whose change does not replace the container. The last three are no-ops in the official plugin too: the
program replaces on them by `replace_on_changes`."""
REPLACING = tuple(key for key in FIELDS if key not in KEPT)
