"""A stand-in for Ollama that answers at a fixed pace. A program for a container: nothing but Python's own library.

    python3 stand_in.py ADDRESS PORT SECONDS

Any POST gets CHUNKS NDJSON chunks, the first FIRST_S after the request was read, then one each PACE_S. Each says when
its request was read and when it was due and sent, on the clock that all containers of one machine share, so a client
can tell the stand-in's own jitter from that of the way. Ends by itself after SECONDS.

Threads that sleep until a fixed time, not asyncio: its event loop wakes in whole milliseconds.
"""

import contextlib
import ctypes
import gc
import json
import os
import signal
import socket
import sys
import threading
import time

FIRST_S = 0.005
PACE_S = 0.005
CHUNKS = 4
PR_SET_TIMERSLACK = 29
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"


def whole(data: bytes) -> int:
    """How many bytes the first request in `data` has; 0 while it is not complete."""
    head, found, _ = data.partition(b"\r\n\r\n")
    if not found:
        return 0
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            length = int(value)
    end = len(head) + len(found) + length
    return end if len(data) >= end else 0


def due_ns(read_ns: int, number: int) -> int:
    """When chunk `number` of a request is due."""
    return read_ns + int((FIRST_S + number * PACE_S) * 1e9)


def frame(read_ns: int, due: int, sent_ns: int, done: bool) -> bytes:
    """One chunk of the HTTP body: what Ollama would write, and three times in nanoseconds."""
    said = {"model": "tiny", "response": "word ", "done": done, "read_ns": read_ns, "due_ns": due, "sent_ns": sent_ns}
    line = json.dumps(said).encode() + b"\n"
    return b"%x\r\n%b\r\n" % (len(line), line)


def sleep_until(due: int) -> None:
    while (left := due - time.monotonic_ns()) > 0:
        time.sleep(left / 1e9)


def serve(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # The kernel may wake a sleeper up to 50 us late to save power; 1 ns asks it not to. Counts per thread.
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    data = b""
    with connection, contextlib.suppress(ConnectionError):
        while True:
            while not (end := whole(data)):
                part = connection.recv(65536)
                if not part:
                    return
                data += part
            read_ns, data = time.monotonic_ns(), data[end:]
            for number in range(CHUNKS):
                due, last = due_ns(read_ns, number), number == CHUNKS - 1
                sleep_until(due)
                chunk = frame(read_ns, due, time.monotonic_ns(), last)
                connection.sendall((HEAD if number == 0 else b"") + chunk + (b"0\r\n\r\n" if last else b""))


def main(address: str, port: int, seconds: int) -> None:
    gc.disable()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.alarm(seconds)
    with socket.create_server((address, port)) as server:
        print("ready", flush=True)
        while True:
            connection, _ = server.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
