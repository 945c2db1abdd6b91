"""docker.Container"""

import re
import time
from typing import Any

from docker.errors import NotFound
from docker.types import DeviceRequest, LogConfig, Mount, Ulimit

from offline.plugins.docker.engine import client, is_ours, labels_of, said
from offline.plugins.docker.naming import named
from offline.plugins.provider import UNKNOWN, Diff, Failed, PartlyDone, Refused, Values, compare, known_only, top

DEFAULTS = {
    "mustRun": True,
    "start": True,
    "removeVolumes": True,
    "containerReadRefreshTimeoutMilliseconds": 15000,
}
IN_PLACE = ("memory", "memorySwap", "restart", "maxRetryCount", "cpuShares", "cpuSet", "mustRun", "destroyGraceSeconds")
QUIET = ("wait", "waitTimeout", "start", "removeVolumes", "containerReadRefreshTimeoutMilliseconds", "stopTimeout")
"""Changed in the state alone: they say how to make or remove a container, not what it is."""
PROPERTIES = (
    *IN_PLACE,
    *QUIET,
    *("image", "name", "command", "entrypoints", "envs", "labels", "networksAdvanced", "networkMode", "readOnly"),
    *("tmpfs", "user", "capabilities", "securityOpts", "ports", "hosts", "volumes", "mounts", "ulimits", "devices"),
    *("healthcheck", "init", "sysctls", "logDriver", "logOpts", "shmSize", "cpus", "gpus", "workingDir", "groupAdds"),
    *("dns", "hostname", "stopSignal", "pidMode"),
)
UNITS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
MIB = 1024 * 1024


class Container:
    token = "docker:index/container:Container"  # noqa: S105

    def check(self, name: str, olds: Values, news: Values, seed: bytes) -> Values:
        known_only(news, PROPERTIES)
        if not news.get("image"):
            raise Refused("image", "is missing")
        return DEFAULTS | named(name, olds, news, seed)

    def diff(self, id_: str, old_inputs: Values, olds: Values, news: Values) -> Diff:
        detailed = compare(old_inputs, news)
        # A refresh that found the container stopped says so in the outputs: `up` starts it again.
        if "mustRun" not in detailed and olds.get("mustRun", True) != news.get("mustRun", True):
            detailed["mustRun"] = "update"
        replace = tuple({top(path) for path in detailed} - set(IN_PLACE) - set(QUIET))
        return Diff(detailed, replace=replace, delete_before_replace=True)

    def create(self, name: str, inputs: Values, preview: bool) -> tuple[str, Values]:
        if preview:
            return "", inputs | {"networkDatas": UNKNOWN, "containerLogs": UNKNOWN, "hostname": UNKNOWN}
        engine = client()
        with said(f"container {inputs['name']}"):
            self._clear(inputs)
            id_ = self._create(inputs)
            networks = inputs.get("networksAdvanced") or []
            for network in networks[1:]:
                engine.connect_container_to_network(id_, network["name"], **_address(network))
        try:
            with said(f"container {inputs['name']}"):
                if inputs.get("start", True) and inputs.get("mustRun", True):
                    engine.start(id_)
            if inputs.get("wait"):
                self._wait(id_, inputs)
        except Failed as failed:
            raise PartlyDone(str(failed), id_, self._outputs(id_, inputs, {})) from failed
        return id_, self._outputs(id_, inputs, {})

    def _clear(self, inputs: Values) -> None:
        """Make room where an interrupted run left a container of this very stack behind."""
        engine = client()
        try:
            found = engine.inspect_container(inputs["name"])
        except NotFound:
            return
        if not is_ours(found["Config"].get("Labels"), inputs):
            raise Failed(f"a container {inputs['name']} is there already and not this stack's; remove it or rename")
        engine.remove_container(found["Id"], force=True)

    def _create(self, inputs: Values) -> str:
        engine = client()
        capabilities = inputs.get("capabilities") or {}
        ports = inputs.get("ports") or []
        networks = inputs.get("networksAdvanced") or []
        restart = inputs.get("restart", "no")
        host_config = engine.create_host_config(
            binds=[_bind(volume) for volume in inputs.get("volumes") or []] or None,
            mounts=[
                Mount(each["target"], each.get("source"), type=each["type"], read_only=bool(each.get("readOnly")))
                for each in inputs.get("mounts") or []
            ]
            or None,
            port_bindings={
                f"{port['internal']}/{port.get('protocol', 'tcp')}": [(port.get("ip", "0.0.0.0"), port["external"])]  # noqa: S104
                for port in ports
            }
            or None,
            network_mode=networks[0]["name"] if networks else inputs.get("networkMode", "bridge"),
            restart_policy={"Name": restart, "MaximumRetryCount": inputs.get("maxRetryCount", 0)},
            read_only=bool(inputs.get("readOnly")),
            cap_add=[cap.removeprefix("CAP_") for cap in capabilities.get("adds") or []] or None,
            cap_drop=capabilities.get("drops") or None,
            security_opt=inputs.get("securityOpts") or None,
            tmpfs=inputs.get("tmpfs") or None,
            mem_limit=inputs["memory"] * MIB if inputs.get("memory") else None,
            memswap_limit=inputs["memorySwap"] * MIB if inputs.get("memorySwap", -1) > 0 else None,
            cpu_shares=inputs.get("cpuShares"),
            nano_cpus=int(float(inputs["cpus"]) * 10**9) if inputs.get("cpus") else None,
            cpuset_cpus=inputs.get("cpuSet"),
            devices=[f"{d['hostPath']}:{d['containerPath']}:{d.get('permissions', 'rwm')}" for d in inputs["devices"]]
            if inputs.get("devices")
            else None,
            device_requests=_gpus(inputs.get("gpus")),
            sysctls=inputs.get("sysctls") or None,
            ulimits=[Ulimit(name=u["name"], soft=u["soft"], hard=u["hard"]) for u in inputs.get("ulimits") or []],
            extra_hosts={row["host"]: row["ip"] for row in inputs.get("hosts") or []} or None,
            log_config=LogConfig(type=inputs["logDriver"], config=inputs.get("logOpts") or {})
            if inputs.get("logDriver")
            else None,
            init=inputs.get("init"),
            shm_size=inputs["shmSize"] * MIB if inputs.get("shmSize") else None,
            group_add=inputs.get("groupAdds"),
            dns=inputs.get("dns"),
            pid_mode=inputs.get("pidMode") or None,
        )
        endpoint = None
        if networks:
            endpoint = {
                "EndpointsConfig": {networks[0]["name"]: engine.create_endpoint_config(**_address(networks[0]))}
            }
        made = engine.create_container(
            inputs["image"],
            command=inputs.get("command"),
            entrypoint=inputs.get("entrypoints"),
            environment=inputs.get("envs"),
            labels=labels_of(inputs),
            user=inputs.get("user"),
            working_dir=inputs.get("workingDir"),
            hostname=inputs.get("hostname"),
            ports=[(port["internal"], port.get("protocol", "tcp")) for port in ports] or None,
            host_config=host_config,
            networking_config=endpoint,
            healthcheck=_health(inputs.get("healthcheck")),
            stop_signal=inputs.get("stopSignal"),
            name=inputs["name"],
        )
        return str(made["Id"])

    def _wait(self, id_: str, inputs: Values) -> None:
        limit = inputs.get("waitTimeout", 60)
        deadline = time.monotonic() + limit
        engine = client()
        while True:
            with said(f"container {inputs['name']}"):
                state = engine.inspect_container(id_)["State"]
            health = (state.get("Health") or {}).get("Status", "none")
            if health == "healthy":
                return
            crashed = state["Status"] in ("exited", "dead") or state.get("Restarting")
            if crashed or time.monotonic() > deadline:
                with said("logs"):
                    words = engine.logs(id_, tail=8).decode(errors="replace").strip()
                seen = "keeps ending" if crashed else f"is {health} after {limit} s"
                raise Failed(f"container {inputs['name']} {seen}; its last words: {words or 'none'}")
            time.sleep(0.25)

    def _outputs(self, id_: str, inputs: Values, olds: Values) -> Values:
        found = client().inspect_container(id_)
        kept = {key: value for key, value in olds.items() if key in ("__meta", "__pulumi_raw_state_delta")}
        networks = found["NetworkSettings"].get("Networks") or {}
        inputs = {key: value for key, value in inputs.items() if key != "__defaults"}
        return (
            kept
            | inputs
            | {
                "id": id_,
                "hostname": found["Config"]["Hostname"],
                "mustRun": bool(found["State"]["Running"]) if inputs.get("mustRun", True) else False,
                "networkDatas": [
                    {"networkName": name, "ipAddress": data["IPAddress"], "ipPrefixLength": data["IPPrefixLen"]}
                    for name, data in sorted(networks.items())
                ],
            }
        )

    def read(self, id_: str, inputs: Values, props: Values) -> tuple[str, Values, Values] | None:
        with said(f"container {id_[:12]}"):
            try:
                outputs = self._outputs(id_, {**props, **inputs}, props)
            except NotFound:
                return None
        return id_, inputs, outputs

    def update(self, id_: str, old_inputs: Values, olds: Values, news: Values, preview: bool) -> Values:
        if preview:
            return olds | news
        engine = client()
        with said(f"container {news['name']}"):
            engine.update_container(
                id_,
                mem_limit=news["memory"] * MIB if news.get("memory") else None,
                memswap_limit=news["memorySwap"] * MIB if news.get("memorySwap", -1) > 0 else None,
                cpu_shares=news.get("cpuShares"),
                cpuset_cpus=news.get("cpuSet"),
                restart_policy={
                    "Name": news.get("restart", "no"),
                    "MaximumRetryCount": news.get("maxRetryCount", 0),
                },
            )
            running = engine.inspect_container(id_)["State"]["Running"]
            if news.get("mustRun", True) and not running:
                engine.start(id_)
            return self._outputs(id_, news, olds)

    def delete(self, id_: str, inputs: Values, props: Values) -> None:
        grace = int(props.get("destroyGraceSeconds") or 0)
        engine = client()
        with said(f"container {props.get('name', id_)}"):
            try:
                if grace:
                    engine.stop(id_, timeout=grace)
                engine.remove_container(id_, v=bool(props.get("removeVolumes", True)), force=True)
            except NotFound:
                return


def _bind(volume: Values) -> str:
    source = volume.get("volumeName") or volume.get("hostPath")
    return f"{source}:{volume['containerPath']}:{'ro' if volume.get('readOnly') else 'rw'}"


def _address(network: Values) -> dict[str, Any]:
    given = {
        "ipv4_address": network.get("ipv4Address"),
        "ipv6_address": network.get("ipv6Address"),
        "aliases": network.get("aliases"),
    }
    return {key: value for key, value in given.items() if value}


def _gpus(text: str | None) -> list[DeviceRequest] | None:
    if not text:
        return None
    if text == "all":
        return [DeviceRequest(count=-1, capabilities=[["gpu"]])]
    return [DeviceRequest(device_ids=text.removeprefix("device=").split(","), capabilities=[["gpu"]])]


def _health(given: Values | None) -> dict[str, Any] | None:
    if not given:
        return None
    return {
        "test": given["tests"],
        "interval": _nanoseconds(given.get("interval", "0s")),
        "timeout": _nanoseconds(given.get("timeout", "0s")),
        "start_period": _nanoseconds(given.get("startPeriod", "0s")),
        "retries": given.get("retries", 0),
    }


def _nanoseconds(text: str) -> int:
    parts = re.findall(r"([0-9.]+)(ns|us|ms|s|m|h)", text)
    if not parts or "".join(a + b for a, b in parts) != text:
        raise Refused("healthcheck", f"{text!r} is not a duration; write it like 5s")
    return int(sum(float(number) * UNITS[unit] for number, unit in parts))
