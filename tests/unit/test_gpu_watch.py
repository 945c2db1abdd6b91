"""What gpu-watch makes of nvidia-smi's words: run as the container runs it, with a stand-in that prints them.

The words are those of `nvidia-smi --help-query-gpu` and of its CSV: units left out, `[N/A]` and the like where a GPU
cannot say.
"""

import os
import re
import secrets
import subprocess
import time
from pathlib import Path

import pytest

import images
from images import reference
from tests.deployment import docker, printed

SCRIPT = Path(images.__file__).parent / "node-exporter" / "gpu-watch"
FIELDS = "index,name,utilization.gpu,memory.used,memory.total,temperature.gpu,power.draw"
RTX = "0, NVIDIA GeForce RTX 4090, 37, 10240, 24564, 61, 285.51"
A100 = "1, NVIDIA A100-SXM4-80GB, 0, 3, 81920, 33, 61.05"
PASSED_THROUGH = "2, GRID T4-8Q, [N/A], 512, 8192, [N/A], [Not Supported]"
RESET = "3, Tesla T4, [GPU requires reset], [Unknown Error], 15360, 40, [N/A]"


class Watch:
    """One container's watch, and the driver that it asks."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.driver = folder, folder / "nvidia-smi"
        self.answers()

    def answers(self, *rows: str, code: int = 0, first: str = "") -> None:
        """first: a line of shell before it answers."""
        text = "\n".join(rows)
        script = (
            f"#!/bin/sh\nprintf '%s\\n' \"$*\" > {self.folder}/asked\n{first}\ncat <<'END'\n{text}\nEND\nexit {code}\n"
        )
        self.driver.write_text(script)
        self.driver.chmod(0o755)

    def __call__(self, word: str = "look", **more: str) -> int:
        path = f"{self.folder}:{os.environ['PATH']}"
        done = subprocess.run(
            ["sh", str(SCRIPT), word],
            env={"PATH": path, "GPU_WATCH_LOG": str(self.folder), **more},
            capture_output=True,
            text=True,
            timeout=20,
        )
        self.said = done.stderr
        return done.returncode

    def figures(self) -> dict[str, float]:
        lines = [line for line in (self.folder / "gpu.prom").read_text().splitlines() if not line.startswith("#")]
        pairs = [line.rpartition(" ") for line in lines]
        assert len({name for name, _, _ in pairs}) == len(pairs), "the same series twice"
        return {name.removeprefix("fortress_gpu_"): float(number) for name, _, number in pairs}


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    return Watch(tmp_path)


def test_each_gpu_has_its_figures_in_the_units_that_prometheus_knows(watch: Watch):
    watch.answers(RTX, A100)
    assert (watch(), watch.said) == (0, "")
    rtx, a100 = '{gpu="0",name="NVIDIA GeForce RTX 4090"}', '{gpu="1",name="NVIDIA A100-SXM4-80GB"}'
    assert watch.figures() == {
        "up": 1,
        f"used_ratio{rtx}": 0.37,
        f"used_ratio{a100}": 0,
        f"memory_used_bytes{rtx}": 10240 << 20,
        f"memory_used_bytes{a100}": 3 << 20,
        f"memory_total_bytes{rtx}": 24564 << 20,
        f"memory_total_bytes{a100}": 81920 << 20,
        f"temperature_celsius{rtx}": 61,
        f"temperature_celsius{a100}": 33,
        f"power_watts{rtx}": 285.51,
        f"power_watts{a100}": 61.05,
    }
    assert (watch.folder / "asked").read_text() == f"--query-gpu={FIELDS} --format=csv,noheader,nounits\n"
    assert (watch.folder / "gpu.prom").stat().st_mode & 0o777 == 0o644


def test_what_a_gpu_cannot_say_is_left_out_and_not_zero(watch: Watch):
    watch.answers(PASSED_THROUGH, RESET)
    assert watch() == 0
    grid, tesla = '{gpu="2",name="GRID T4-8Q"}', '{gpu="3",name="Tesla T4"}'
    assert watch.figures() == {
        "up": 1,
        f"memory_used_bytes{grid}": 512 << 20,
        f"memory_total_bytes{grid}": 8192 << 20,
        f"memory_total_bytes{tesla}": 15360 << 20,
        f"temperature_celsius{tesla}": 40,
    }
    assert "fortress_gpu_used_ratio" not in (watch.folder / "gpu.prom").read_text(), "no words about what is not there"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("Failed to initialize NVML: Unknown Error", 255, "ended with 255: Failed to initialize NVML: Unknown Error"),
        ("Unable to determine the device handle for GPU0: 0000:01:00.0: GPU is lost.", 15, "GPU is lost"),
        ("No devices were found", 6, "No devices were found"),
        ("No devices were found", 0, "No devices were found"),
        ("0, half a row", 0, "0, half a row"),
        ("", 0, "no GPU answers: "),
    ],
)
def test_gpus_that_do_not_answer_are_down_and_keep_no_old_figures(words: str, code: int, said: str, watch: Watch):
    watch.answers(RTX)
    assert watch() == 0
    watch.answers(words, code=code)
    assert watch() == 1
    assert watch.figures() == {"up": 0}
    assert said in watch.said


def test_a_driver_that_is_not_there_is_said(watch: Watch):
    watch.driver.unlink()
    assert watch() == 1
    assert watch.figures() == {"up": 0}
    assert "nvidia-smi ended with 127" in watch.said


def test_a_driver_that_hangs_is_waited_for_only_so_long(watch: Watch):
    watch.answers(RTX, first="trap '' TERM; sleep 15")
    began = time.monotonic()
    assert watch(GPU_WATCH_PATIENCE="1") == 1
    assert time.monotonic() - began < 8
    assert watch.figures() == {"up": 0}
    assert "nvidia-smi ended with 137" in watch.said or "nvidia-smi ended with 124" in watch.said


def test_no_text_of_a_name_leaves_its_place(watch: Watch):
    watch.answers('0, a"} 1\\n{b, 1, 2, 3, 4, 5')
    assert watch() == 0
    assert 'used_ratio{gpu="0",name="a 1nb"}' in watch.figures()


def test_the_trouble_is_said_once_and_again_after_it_was_over(tmp_path: Path, watch: Watch):
    watch.answers("no", first=f"[ $(($(wc -l < {tmp_path}/looks) % 4)) != 2 ] || {{ echo '{RTX}'; exit; }}")
    (tmp_path / "looks").write_text("")
    (tmp_path / "sleep").write_text(
        f"#!/bin/sh\necho >> {tmp_path}/looks\n[ $(wc -l < {tmp_path}/looks) -lt 5 ] || kill $PPID\n"
    )
    (tmp_path / "sleep").chmod(0o755)
    watch("forever")
    assert watch.said.count("no GPU answers") == 2


def test_health_is_that_the_figures_are_young(watch: Watch):
    assert watch("health") == 1
    watch.answers("no", code=9)
    watch()
    assert watch("health") == 0, "that the GPU is gone is told by its figure; this container is well"
    old = time.time() - 200
    os.utime(watch.folder / "gpu.prom", (old, old))
    assert watch("health") == 1


def test_the_figures_are_what_prometheus_reads(watch: Watch):
    watch.answers(RTX, A100, PASSED_THROUGH)
    watch()
    text = (watch.folder / "gpu.prom").read_text()
    helps, types = (re.findall(rf"^# {word} (\S+) ", text, re.MULTILINE) for word in ("HELP", "TYPE"))
    assert helps == types == sorted(set(types), key=types.index)
    name = None
    for line in text.splitlines():
        if line.startswith("# TYPE"):
            name = line.split()[2]
        elif not line.startswith("#"):
            assert re.split(r"[{ ]", line)[0] == name, "a series stands below its own type"


def test_its_container_needs_no_more_than_it_is_given_and_the_exporter_reads_what_it_writes(watch: Watch):
    """As the program makes it, but that the driver is a stand-in."""
    watch.answers(RTX, A100)
    # The stand-in notes what it was asked, which the container's read-only root refuses.
    watch.driver.write_text(watch.driver.read_text().replace(f"{watch.folder}/asked", "/dev/null"))
    image, name = reference("node-exporter", os.environ.get("FORTRESS_ENGINE", "registry-only")), secrets.token_hex(6)
    bare = ["--network", "none", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    mounts = ["-v", f"{name}:/var/log/gpu", "-v", f"{watch.driver}:/usr/bin/nvidia-smi:ro"]
    reads = ["--collector.disable-defaults", "--collector.textfile", "--collector.textfile.directory=/var/log/gpu"]
    ask = "exec 3<> /dev/tcp/127.0.0.1/9100; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"
    names = [f"{name}-gpu", f"{name}-exporter"]
    try:
        docker("run", "-d", "--name", names[0], *bare, *mounts, "--user", "108:108", "--entrypoint", "gpu-watch", image)
        docker("run", "-d", "--name", names[1], *bare, "-v", f"{name}:/var/log/gpu:ro", image, *reads)
        deadline = time.monotonic() + 20
        found = ""
        while 'fortress_gpu_power_watts{gpu="1"' not in found:
            assert time.monotonic() < deadline, found[-2000:] + printed(names[0])
            time.sleep(0.2)
            found = docker("exec", names[1], "bash", "-c", ask, check=False)
        assert 'node_textfile_mtime_seconds{file="/var/log/gpu/gpu.prom"}' in found, "by which GpuGone knows its age"
        assert "node_textfile_scrape_error 0" in found
        docker("exec", names[0], "gpu-watch", "health")
    finally:
        docker("rm", "-f", "-v", *names, check=False)
        docker("volume", "rm", name, check=False)
