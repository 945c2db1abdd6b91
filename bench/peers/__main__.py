"""`make bench-peers`: a fortress of its own beside other gateways; an error where it is not the better one in a row."""

import sys

from rich.console import Console

from bench import __main__ as bench
from bench import results, scene, worker
from bench.peers import compare, installed, running
from fortress import docker_engine
from render.nginx import OLLAMA_PORT
from tests.deployment import Deployment, deployed, docker

FILE = results.LATEST.with_name("peers.json")


def main() -> int:
    console = bench.console()
    docker_engine.ensure(console)
    console.print("installing what to compare with")
    installed.litellm()
    installed.portkey()
    console.print("deploying a fortress of its own")
    deployment = bench.measurable(Deployment.fresh("bench"))
    with deployed(deployment):
        measured = [bench.load("side by side"), *side_by_side(deployment, console)]
    results.write(measured, FILE)
    console.print(results.table(measured))
    return results.exit_code(measured)


def side_by_side(deployment: Deployment, console: Console) -> list[results.Result]:
    heart = scene.config(deployment).plan.heart
    direct = {"address": str(heart.ollama), "port": OLLAMA_PORT, "host": f"localhost:{OLLAMA_PORT}"}
    gateway, sidecar = deployment.container("gateway"), deployment.container("ollama-sidecar")
    with scene.stand_in(deployment), scene.asker(deployment, "heart") as asker:
        console.print("starting the others")
        with running.running(deployment, asker) as others:
            worker.fresh(gateway)
            ways = {compare.OWN: scene.through(deployment, bench.USER), compare.DIRECT: direct}
            ways |= {name: other.way for name, other in others.items()}
            console.print("measuring them in turn")
            seen = compare.measure(asker, ways)
            memory = {name: running.megabytes([other.pid]) for name, other in others.items()}
            own = [int(pid) for each in (gateway, sidecar) for pid in docker("top", each, "-eo", "pid").split()[1:]]
            memory[compare.OWN] = running.megabytes(own)
    return compare.figures(seen, memory)


if __name__ == "__main__":
    sys.exit(main())
