"""One audit line as the gateway writes it; a test changes what it is about."""

from typing import Any

LINE: dict[str, Any] = {
    "time": "2026-11-26T08:00:01.250Z",
    "request_id": "ab" * 16,
    "principal": "bob",
    "proof": "key",
    "device": "desk",
    "relay": "wireguard",
    "address": "10.66.5.6",
    "route": "/api/chat",
    "method": "POST",
    "status": 200,
    "verdict": "allowed",
    "reason": "",
    "model": "tiny",
    "agent": "ollama",
    "tokens_in": 26,
    "tokens_out": 298,
    "first_token_s": 0.5,
    "duration_s": 2.5,
    "queued_s": 0,
    "bytes": 1234,
    "completion": "finished",
    "tls": "TLSv1.3",
}
