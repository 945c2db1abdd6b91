"""docker.Container"""

import re
import time
from typing import Any

from docker.errors import APIError, NotFound
from docker.types import DeviceRequest, Healthcheck, LogConfig, Mount, Ulimit

from offline.plugins import schema
from offline.plugins.docker.container_fields import FIELDS, LIVE, META, REPLACING
from offline.plugins.docker.engine import client, is_ours, labels_of, said
from offline.plugins.docker.naming import named
from offline.plugins.provider import UNKNOWN, Diff, Failed, PartlyDone, Refused, Values, is_unknown

UNITS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
MIB = 1024 * 1024
ATTACH_LIMIT_S = 1200
SETTLE_S = 0.3
"""How long a container without a health check is given to end at once, so that the failure is told where it belongs."""
MOUNT_TYPES = ("bind", "volume", "tmpfs")
RESTARTS = ("no", "on-failure", "always", "unless-stopped")


class Container:
    token = "docker:index/container:Container"  # noqa: S105

    def check(self, name: str, olds: Values, news: Values, seed: bytes) -> Values:
        inputs = named(name, olds, schema.checked(FIELDS, news), seed)
        _sensible(inputs)
        return inputs

    def diff(self, id_: str, old_inputs: Values, olds: Values, news: Values) -> Diff:
        detailed = schema.difference(FIELDS, old_inputs, news, olds)
        # A refresh that found the container stopped says so in the outputs too: `up` starts it again.
        if "mustRun" not in detailed and olds.get("mustRun", True) != news.get("mustRun", True):
            detailed["mustRun"] = "update"
        return Diff(detailed, replace=REPLACING, delete_before_replace=True)

    def create(self, name: str, inputs: Values, preview: bool) -> tuple[str, Values]:
        inputs = schema.without_marks(inputs)
        if preview:
            return "", schema.outputs(FIELDS, inputs, "preview") | {"id": UNKNOWN, "__meta": META}
        engine = client()
        with said(f"container {inputs['name']}"):
            self._clear(inputs)
            id_ = self._create(inputs)
            try:
                self._connect(id_, inputs)
            except BaseException:
                # Not started, not in the state: nothing of it may stay.
                engine.remove_container(id_, force=True)
                raise
        ran: Values = {}
        try:
            with said(f"container {inputs['name']}"):
                if inputs.get("start", True):
                    engine.start(id_)
                    ran = self._attached(id_, inputs) if inputs.get("attach") else {}
            self._settled(id_, inputs)
        except Failed as failed:
            raise PartlyDone(str(failed), id_, self._outputs(id_, inputs, {}, "made")) from failed
        values = self._outputs(id_, inputs, ran, "made")
        if inputs.get("rm") and inputs.get("attach"):
            with said(f"container {inputs['name']}"):
                engine.remove_container(id_, v=True, force=True)
        return id_, values

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
        bindings: dict[int | str, Any] = {}
        for port in ports:
            key = f"{port['internal']}/{port.get('protocol', 'tcp')}"
            bindings.setdefault(key, []).append((port.get("ip", ""), port.get("external")))
        host_config = engine.create_host_config(
            auto_remove=bool(inputs.get("rm")) and not inputs.get("attach"),
            binds=[_bind(volume) for volume in inputs.get("volumes") or []] or None,
            mounts=[_mount(each) for each in inputs.get("mounts") or []] or None,
            port_bindings=dict(bindings) or None,
            network_mode=inputs.get("networkMode", "bridge"),
            restart_policy={"Name": inputs.get("restart", "no"), "MaximumRetryCount": inputs.get("maxRetryCount", 0)},
            read_only=bool(inputs.get("readOnly")),
            cap_add=capabilities.get("adds") or None,
            cap_drop=capabilities.get("drops") or None,
            security_opt=inputs.get("securityOpts") or None,
            tmpfs=inputs.get("tmpfs") or None,
            mem_limit=inputs["memory"] * MIB if inputs.get("memory") else None,
            memswap_limit=_swap(inputs.get("memorySwap")),
            cpu_shares=inputs.get("cpuShares"),
            nano_cpus=round(float(inputs["cpus"]) * 10**9) if inputs.get("cpus") else None,
            cpuset_cpus=inputs.get("cpuSet"),
            devices=[_device(each) for each in inputs.get("devices") or []] or None,
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
            cgroupns=inputs.get("cgroupnsMode") or None,
        )
        health = _health(inputs.get("healthcheck"))
        config = engine.create_container_config(
            inputs["image"],
            command=inputs.get("command") or [],
            entrypoint=inputs.get("entrypoints"),
            environment=inputs.get("envs"),
            labels=labels_of(inputs),
            user=inputs.get("user"),
            working_dir=inputs.get("workingDir"),
            hostname=inputs.get("hostname"),
            ports=[(port["internal"], port.get("protocol", "tcp")) for port in ports] or None,
            host_config=host_config,
            healthcheck=Healthcheck(**health) if health else None,
            stop_signal=inputs.get("stopSignal"),
            detach=True,
        )
        if inputs.get("stopTimeout") is not None:
            config["StopTimeout"] = inputs["stopTimeout"]  # docker-py has no argument for it
        return str(engine.create_container_from_config(config, inputs["name"])["Id"])

    def _connect(self, id_: str, inputs: Values) -> None:
        """Before the start, so that the container never lives with another address; as the official plugin does it."""
        engine = client()
        networks = inputs.get("networksAdvanced") or []
        if networks and inputs.get("networkMode", "bridge") == "bridge":
            engine.disconnect_container_from_network(id_, "bridge", force=True)
        for network in networks:
            engine.connect_container_to_network(id_, network["name"], **_address(network))

    def _attached(self, id_: str, inputs: Values) -> Values:
        """Wait for the end of a one-shot container."""
        engine = client()
        ended = engine.wait(id_, timeout=ATTACH_LIMIT_S)
        words = engine.logs(id_).decode(errors="replace") if inputs.get("logs") else None
        return {"exitCode": ended["StatusCode"], "containerLogs": words}

    def _settled(self, id_: str, inputs: Values) -> None:
        """Healthy where that was asked for, else at least still there."""
        if not inputs.get("start", True) or not inputs.get("mustRun", True) or inputs.get("attach"):
            return
        wait = bool(inputs.get("wait"))
        limit = inputs.get("waitTimeout", 60) if wait else SETTLE_S
        deadline = time.monotonic() + limit
        engine = client()
        while True:
            with said(f"container {inputs['name']}"):
                state = engine.inspect_container(id_)["State"]
            health = (state.get("Health") or {}).get("Status", "without a health check")
            ended = state["Status"] in ("exited", "dead") or bool(state.get("Restarting"))
            late = time.monotonic() > deadline
            if not ended and (health == "healthy" if wait else late):
                return
            if ended or late:
                with said("logs"):
                    words = engine.logs(id_, tail=8).decode(errors="replace").strip()
                seen = f"ends with status {state.get('ExitCode')}" if ended else f"is {health} after {limit} s"
                raise Failed(f"container {inputs['name']} {seen}; its last words: {words or 'none'}")
            time.sleep(0.1)

    def _outputs(self, id_: str, inputs: Values, olds: Values, phase: schema.Phase) -> Values:
        with said(f"container {id_[:12]}"):
            found = client().inspect_container(id_)
        seen = _seen(found)
        facts = {key: seen[key] for key in ("networkDatas", "hostname", "platform", "runtime")}
        given = schema.without_marks(inputs)
        if phase == "read":
            facts |= _read_back(found, given)
        values = schema.outputs(FIELDS, given | facts, phase, seen | _properties(olds))
        noted = olds.get("__pulumi_raw_state_delta", {}).get("obj", {}).get("ps", {})
        made = phase == "made" and "healthcheck" not in noted
        delta = schema.raw_state_delta(FIELDS, values, made=made)
        return values | {"id": id_, "__meta": META, "__pulumi_raw_state_delta": delta}

    def read(self, id_: str, inputs: Values, props: Values) -> tuple[str, Values, Values] | None:
        with said(f"container {id_[:12]}"):
            try:
                found = client().inspect_container(id_)
            except NotFound:
                # One that removes itself when it ends has done just what it was asked.
                return (id_, schema.without_empty_marks(inputs), props) if props.get("rm") else None
        drifted = {
            key: value for key, value in _read_back(found, inputs).items() if key in inputs and inputs[key] != value
        }
        seen_inputs = schema.without_empty_marks(inputs) | drifted
        if "__defaults" in seen_inputs:
            seen_inputs["__defaults"] = [key for key in seen_inputs["__defaults"] if key not in drifted]
        return id_, seen_inputs, self._outputs(id_, seen_inputs, props, "read")

    def update(self, id_: str, old_inputs: Values, olds: Values, news: Values, preview: bool) -> Values:
        before, after = schema.without_marks(old_inputs), schema.without_marks(news)
        changed = {key: value for key, value in after.items() if before.get(key) != value}
        kept = {key: value for key, value in olds.items() if key in after or key not in before}
        if preview:
            return schema.outputs(FIELDS, changed, "made", _properties(kept)) | {"id": id_, "__meta": META}
        engine = client()
        with said(f"container {news['name']}"):
            if any(olds.get(key) != news.get(key) for key in LIVE):
                engine.update_container(
                    id_,
                    mem_limit=news["memory"] * MIB if news.get("memory") else None,
                    memswap_limit=_swap(news.get("memorySwap")),
                    cpu_shares=news.get("cpuShares"),
                    cpuset_cpus=news.get("cpuSet"),
                    restart_policy={
                        "Name": news.get("restart", "no"),
                        "MaximumRetryCount": news.get("maxRetryCount", 0),
                    },
                )
            running = engine.inspect_container(id_)["State"]["Running"]
            if news.get("mustRun", True) and news.get("start", True) and not running and not news.get("attach"):
                engine.start(id_)
        try:
            self._settled(id_, news)
        except Failed as failed:
            raise PartlyDone(str(failed), id_, self._outputs(id_, changed, kept, "made")) from failed
        return self._outputs(id_, changed, kept, "made")

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
            except APIError as error:
                if "is already in progress" not in str(error.explanation):
                    raise


def _properties(state: Values) -> Values:
    return {key: value for key, value in schema.without_marks(state).items() if key in FIELDS}


def _sensible(inputs: Values) -> None:
    """What the engine would only say half-way through."""
    if not inputs.get("image"):
        raise Refused("image", "is missing")
    if not is_unknown(inputs.get("healthcheck")):
        _health(inputs.get("healthcheck"))
    if inputs.get("wait") and not inputs.get("healthcheck"):
        raise Refused("wait", "needs a healthcheck to wait for")
    if inputs.get("logs") and not inputs.get("attach"):
        raise Refused("logs", "needs `attach`: only the logs of a one-shot container are kept")
    if inputs.get("restart", "no") not in (*RESTARTS, UNKNOWN):
        raise Refused("restart", f"write one of {', '.join(RESTARTS)}")
    for index, mount in enumerate(inputs.get("mounts") or []):
        if isinstance(mount, dict) and mount.get("type") not in (*MOUNT_TYPES, UNKNOWN):
            raise Refused(f"mounts[{index}].type", f"write one of {', '.join(MOUNT_TYPES)}")
    for index, volume in enumerate(inputs.get("volumes") or []):
        if isinstance(volume, dict) and not (volume.get("volumeName") or volume.get("hostPath")):
            raise Refused(f"volumes[{index}]", "needs a volumeName or a hostPath")
    mode = inputs.get("networkMode", "bridge")
    if inputs.get("networksAdvanced") and mode not in ("bridge", UNKNOWN):
        raise Refused("networksAdvanced", f"goes with networkMode bridge only, not with {mode!r}")


def _seen(found: dict[str, Any]) -> Values:
    """What an unset property turned out to be."""
    config, host = found["Config"], found["HostConfig"]
    networks = (found["NetworkSettings"].get("Networks") or {}).items()
    return {
        "command": config.get("Cmd") or [],
        "cpuSet": host.get("CpusetCpus") or "",
        "hostname": config.get("Hostname") or "",
        "ipcMode": host.get("IpcMode") or "",
        "logDriver": host["LogConfig"]["Type"],
        "logOpts": host["LogConfig"].get("Config") or None,
        "platform": found.get("Platform", "linux"),
        "runtime": host.get("Runtime") or "",
        "shmSize": (host.get("ShmSize") or 0) // MIB,
        "stopSignal": config.get("StopSignal") or "",
        "stopTimeout": config.get("StopTimeout") or 0,
        "networkDatas": [
            {
                "gateway": data.get("Gateway", ""),
                "globalIpv6Address": data.get("GlobalIPv6Address", ""),
                "globalIpv6PrefixLength": data.get("GlobalIPv6PrefixLen", 0),
                "ipAddress": data.get("IPAddress", ""),
                "ipPrefixLength": data.get("IPPrefixLen", 0),
                "ipv6Gateway": data.get("IPv6Gateway", ""),
                "macAddress": data.get("MacAddress", ""),
                "networkName": name,
            }
            for name, data in sorted(networks)
        ],
    }


def _read_back(found: dict[str, Any], inputs: Values) -> Values:
    """What can drift in a container that is still the same one."""
    host, state = found["HostConfig"], found["State"]
    swap = host.get("MemorySwap") or 0
    asked = inputs.get("memorySwap") or 0
    if swap < 0 < asked:
        swap = asked * MIB  # a kernel that cannot limit swap says -1 whatever was asked: no drift
    running = bool(state["Running"]) or bool(state.get("Restarting"))
    values: Values = {
        "memory": (host.get("Memory") or 0) // MIB,
        "memorySwap": swap if swap < 0 else swap // MIB,
        "restart": (host.get("RestartPolicy") or {}).get("Name") or "no",
        "maxRetryCount": (host.get("RestartPolicy") or {}).get("MaximumRetryCount") or 0,
        "cpuShares": host.get("CpuShares") or 0,
        "cpuSet": host.get("CpusetCpus") or "",
        "mustRun": bool(inputs.get("mustRun", True)) and running,
    }
    return values if running else values | {"exitCode": state.get("ExitCode")}


def _swap(mib: int | None) -> int | None:
    if not mib:
        return None
    return -1 if mib < 0 else mib * MIB


def _bind(volume: Values) -> str:
    source = volume.get("volumeName") or volume.get("hostPath")
    return f"{source}:{volume['containerPath']}:{'ro' if volume.get('readOnly') else 'rw'}"


def _mount(given: Values) -> Mount:
    tmpfs = given.get("tmpfsOptions") or {}
    return Mount(
        given["target"],
        given.get("source") or None,
        type=given["type"],
        read_only=bool(given.get("readOnly")),
        propagation=(given.get("bindOptions") or {}).get("propagation") or None,
        tmpfs_size=tmpfs.get("sizeBytes"),
        tmpfs_mode=tmpfs.get("mode"),
    )


def _device(given: Values) -> str:
    return f"{given['hostPath']}:{given.get('containerPath') or given['hostPath']}:{given.get('permissions') or 'rwm'}"


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
    if _nanoseconds(given.get("startInterval", "0s")):
        raise Refused("healthcheck.startInterval", "needs an engine newer than this plugin asks for; leave it out")
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
