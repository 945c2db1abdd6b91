"""pulumi-language-python: runs the Python program for the engine. `pulumi` starts one for each command."""

import json
import os
import re
import subprocess
import sys
import threading
from concurrent import futures
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import language_pb2, language_pb2_grpc, plugin_pb2

VERSION = "3.272.0"


class LanguageHost(language_pb2_grpc.LanguageRuntimeServicer):
    def __init__(self, engine: str) -> None:
        self.engine = engine

    def Handshake(self, request: Any, context: Any) -> Any:
        self.engine = request.engine_address
        return language_pb2.LanguageHandshakeResponse()

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return plugin_pb2.PluginInfo(version=VERSION)

    def GetRequiredPackages(self, request: Any, context: Any) -> Any:
        packages = [
            plugin_pb2.PackageDependency(name=name, version=version, kind="resource") for name, version in required()
        ]
        return language_pb2.GetRequiredPackagesResponse(packages=packages)

    def GetRequiredPlugins(self, request: Any, context: Any) -> Any:
        plugins = [
            plugin_pb2.PluginDependency(name=name, version=version, kind="resource") for name, version in required()
        ]
        return language_pb2.GetRequiredPluginsResponse(plugins=plugins)

    def InstallDependencies(self, request: Any, context: Any) -> Any:
        """`make` has made the virtualenv; nothing is installed behind its back."""
        return iter(())

    def RuntimeOptionsPrompts(self, request: Any, context: Any) -> Any:
        return language_pb2.RuntimeOptionsResponse()

    def About(self, request: Any, context: Any) -> Any:
        return language_pb2.AboutResponse(executable=sys.executable, version=sys.version.split()[0])

    def GetProgramDependencies(self, request: Any, context: Any) -> Any:
        found = [
            language_pb2.DependencyInfo(name=each.metadata["Name"], version=each.version) for each in distributions()
        ]
        return language_pb2.GetProgramDependenciesResponse(dependencies=found)

    def Cancel(self, request: Any, context: Any) -> Any:
        return empty_pb2.Empty()

    def Run(self, request: Any, context: Any) -> Any:
        arguments = ["--monitor", request.monitor_address, "--engine", self.engine, "--project", request.project]
        arguments += ["--stack", request.stack, "--organization", request.organization or "organization"]
        arguments += ["--pwd", request.pwd, "--root-directory", request.info.root_directory or request.pwd]
        arguments += ["--parallel", str(request.parallel)]
        if request.dryRun:
            arguments.append("--dry-run")
        program = Path(request.info.program_directory or request.pwd)
        environment = {
            **os.environ,
            "PULUMI_CONFIG": json.dumps(dict(request.config)),
            "PULUMI_CONFIG_SECRET_KEYS": json.dumps(list(request.configSecretKeys)),
            "PYTHONUNBUFFERED": "1",
            # The kit's own path must not shadow the program's folders.
            "PYTHONPATH": str(program),
        }
        shim = Path(__file__).with_name("run_program.py")
        done = subprocess.Popen([sys.executable, str(shim), *arguments, str(program)], env=environment, cwd=request.pwd)
        context.add_callback(lambda: done.poll() is None and done.terminate())
        code = done.wait()
        if code == 0:
            return language_pb2.RunResponse()
        # The shim has told the engine what was wrong; only a death without words needs an error of its own.
        bail = code == 32
        return language_pb2.RunResponse(bail=bail, error="" if bail else f"the program ended with code {code}")

    def RunPlugin(self, request: Any, context: Any) -> Any:
        """Runs a Python plugin (a policy pack, say) and hands its output on."""
        command = [sys.executable, "-m", "pulumi.policy"] if request.kind == "analyzer" else [sys.executable]
        process = subprocess.Popen(
            [*command, request.info.program_directory, *request.args],
            cwd=request.pwd,
            env={**dict(pair.split("=", 1) for pair in request.env)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        context.add_callback(process.terminate)
        assert process.stdout and process.stderr
        errors: list[bytes] = []
        reader = threading.Thread(target=lambda: errors.append(process.stderr.read()))  # type: ignore[union-attr]
        reader.start()
        for line in process.stdout:
            yield language_pb2.RunPluginResponse(stdout=line)
        reader.join()
        yield language_pb2.RunPluginResponse(stderr=b"".join(errors))
        yield language_pb2.RunPluginResponse(exitcode=process.wait())


def required() -> list[tuple[str, str]]:
    """(plugin, version) of every installed Pulumi package: its pulumi-plugin.json says so."""
    found = []
    for each in distributions():
        name = re.sub(r"[-_.]+", "-", each.metadata["Name"] or "").lower()
        if not name.startswith("pulumi-") or name in ("pulumi-policy", "pulumi-esc-sdk"):
            continue
        folder = Path(str(each.locate_file(name.replace("-", "_"))))
        declared = folder / "pulumi-plugin.json"
        said = json.loads(declared.read_text()) if declared.exists() else {}
        found.append((said.get("name") or name.removeprefix("pulumi-"), said.get("version") or f"v{each.version}"))
    return [(name, version if version.startswith("v") else f"v{version}") for name, version in sorted(found)]


def main() -> None:
    engine = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(LanguageHost(engine), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    parent = os.getppid()
    try:
        # An engine that was killed says no good-bye.
        while server.wait_for_termination(timeout=2) and os.getppid() == parent:
            pass
        server.stop(grace=0)
    except KeyboardInterrupt:  # how the engine says good-bye
        server.stop(grace=0)


if __name__ == "__main__":
    main()
