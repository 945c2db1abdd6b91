"""The builtin model: the same bytes everywhere, small on the wire, and talkative in the real engine."""

import gzip
import hashlib
import json
import struct
import subprocess

import pytest

from images import ImageError, reference
from models.tiny_gguf import EMBEDDING, packed, tiny_gguf

SHA256 = "87afbb596c5d604518a52264138decd84dc17fd82073182056de800f84b79d74"


def test_the_file_is_the_same_on_every_machine():
    """Another file is another model: every deployment would create it anew."""
    assert hashlib.sha256(tiny_gguf()).hexdigest() == SHA256


def test_it_is_small_and_smaller_packed():
    assert len(tiny_gguf()) < 1_000_000
    assert len(packed()) < 60_000


def test_the_packed_file_is_gzip_and_says_nothing_of_who_packed_it():
    assert gzip.decompress(packed()) == tiny_gguf()
    assert packed()[:10].hex() == "1f8b08000000000002ff"


def test_the_header_says_gguf_3():
    magic, version = struct.unpack("<4sI", tiny_gguf()[:8])
    assert (magic, version) == (b"GGUF", 3)


def test_no_row_speaks_for_the_end_token_or_a_single_byte():
    """output.weight is the last tensor: 257 silent rows, then the syllables."""
    rows = 257 + 2 * 70
    output = tiny_gguf()[-rows * EMBEDDING * 4 :]
    assert not any(output[: 257 * EMBEDDING * 4])
    assert all(output[row * EMBEDDING * 4 :][: EMBEDDING * 4].strip(b"\0") for row in range(257, rows))


@pytest.fixture(scope="session")
def ollama() -> str:
    for engine in ("registry-only", "online"):
        try:
            return reference("ollama", engine)
        except ImageError as error:
            missing = str(error)
    pytest.fail(f"the real Ollama is needed here: {missing}", pytrace=False)


def test_the_real_ollama_streams_words_from_it_to_the_last_token_asked_for(ollama: str):
    script = r"""
        cat > /tmp/model.gguf; echo 'FROM ./model.gguf' > /tmp/Modelfile; cd /tmp
        ollama serve > /tmp/log 2>&1 &
        for _ in $(seq 100); do ollama ls > /dev/null 2>&1 && break; sleep 0.2; done
        ollama create tiny -f Modelfile > /dev/null 2>&1 || { cat /tmp/log; exit 1; }
        exec 3<> /dev/tcp/127.0.0.1/11434
        printf 'POST /api/generate HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s' "${#1}" "$1" >&3
        cat <&3
    """
    body = {"model": "tiny", "prompt": "Why is the sky blue?", "options": {"num_predict": 64}}
    done = subprocess.run(
        [
            *("docker", "run", "--rm", "-i", "--network", "none", "--cap-drop", "ALL", "--user", "1000:1000"),
            *("-e", "HOME=/tmp", "-e", "OLLAMA_MODELS=/tmp/models", "-e", "OLLAMA_HOST=127.0.0.1:11434"),
            *("--entrypoint", "/bin/bash", ollama, "-c", script, "bash", json.dumps(body)),
        ],
        input=tiny_gguf(),
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, f"{done.stdout.decode()}{done.stderr.decode()}"
    frames = [json.loads(line) for line in done.stdout.splitlines() if line.startswith(b"{")]
    assert len(frames) == 65, done.stdout.decode()[-500:]
    assert frames[-1]["done_reason"] == "length" and frames[-1]["eval_count"] == 64
    assert all(frame["response"].strip() for frame in frames[:-1]), "an empty chunk is no word"
