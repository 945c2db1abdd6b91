"""Whom Alertmanager tells, as stand-ins: a real mail server, and what Telegram, ntfy and a webhook document.

`python -m tests.receivers FOLDER [plain]` serves on 127.0.0.1 of the network it is started in, at the ports that the
real ones have, and appends what arrives to FOLDER/arrived as JSON lines. `plain`: a mail server that speaks no TLS.
"""

import json
import re
import ssl
import sys
import threading
from collections.abc import Mapping
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

MAIL, TELEGRAM, NTFY, WEBHOOK = "smtp.example.com", "api.telegram.org", "ntfy.example.com", "hooks.example.com"
NAMES = (MAIL, TELEGRAM, NTFY, WEBHOOK)
BOT, TOKEN, USER, PASSWORD = "12345:s3cret-telegram-token-of-the-bot", "tk_s3cret", "fortress", "s3cret of the mail"
TOPIC, HOOK = "s3cret-topic", "/s3cret-hook"


class Arrived:
    def __init__(self, file: Path) -> None:
        self.file, self.lock = file, threading.Lock()

    def add(self, by: str, **what: Any) -> None:
        with self.lock, self.file.open("a") as out:
            out.write(json.dumps({"by": by, **what}) + "\n")


class Mailbox:
    """Takes mail of whoever logs in."""

    def __init__(self, arrived: Arrived) -> None:
        self.arrived = arrived

    def login(self, server: Any, session: Session, envelope: Envelope, mechanism: str, given: Any) -> AuthResult:
        assert isinstance(given, LoginPassword)
        right = (given.login.decode(), given.password.decode()) == (USER, PASSWORD)
        if not right:
            self.arrived.add("refused", what="a wrong password at the mail server")
        return AuthResult(success=right)

    async def handle_EHLO(self, server: Any, session: Any, envelope: Any, hostname: str, responses: list[str]) -> Any:
        session.host_name = hostname
        self.arrived.add("hello", tls=session.ssl is not None)
        return responses

    async def handle_DATA(self, server: Any, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        mail = message_from_bytes(envelope.content, policy=policy.default)
        part = mail.get_body(("plain",))
        self.arrived.add(
            "email",
            sender=envelope.mail_from,
            to=envelope.rcpt_tos,
            headers={name: str(mail[name]) for name in ("From", "To", "Subject")},
            kinds=[each.get_content_type() for each in mail.walk()],
            text=part.get_content().replace("\r\n", "\n") if part else "",
            tls=session.ssl is not None,
        )
        return "250 OK"


def go_template(text: str, data: Any) -> str:
    """The little of Go's template language that is sent to ntfy; anything else is refused."""
    tokens = [token for token in re.split(r"(\{\{.*?\}\})", text) if token]

    def block(at: int, dot: Any, shown: bool) -> tuple[str, int, str]:
        """Returns: the text up to the block's end, the place after it, and which word ended it."""
        out = ""
        while at < len(tokens):
            word = tokens[at].removeprefix("{{").removesuffix("}}").strip()
            if not tokens[at].startswith("{{"):
                out, at = out + (tokens[at] if shown else ""), at + 1
            elif word in ("end", "else"):
                return out, at + 1, word
            elif found := re.fullmatch(r"range \.(\w+)", word):
                begin, rows = at + 1, dot[found[1]] if shown else []
                for row in rows:
                    out += block(begin, row, True)[0]
                at = block(begin, {}, False)[1]
            elif found := re.fullmatch(r"if eq \.(\w+) `(\w+)`", word):
                holds = shown and dot[found[1]] == found[2]
                yes, at, ended = block(at + 1, dot, holds)
                no = ""
                if ended == "else":
                    no, at, _ = block(at, dot, shown and not holds)
                out += yes + no
            elif re.fullmatch(r"(\.\w+)+", word):
                value = dot
                for name in word.split(".")[1:] if shown else []:
                    value = value[name]
                out, at = out + (str(value) if shown else ""), at + 1
            else:
                raise ValueError(f"{word} is not understood here")
        return out, at, ""

    return block(0, data, True)[0]


def telegram(path: str, headers: Mapping[str, str], body: Any) -> tuple[int, Any, dict[str, Any]]:
    """sendMessage. Source: core.telegram.org/bots/api, "Making requests" and "sendMessage"."""
    if path != f"/bot{BOT}/sendMessage":
        return 401, {"ok": False, "error_code": 401, "description": "Unauthorized"}, {}
    text = str(body.get("text", ""))
    if not headers["Content-Type"].startswith("application/json") or not 0 < len(text) <= 4096:
        return 400, {"ok": False, "error_code": 400, "description": "Bad Request: message text is empty"}, {}
    chat = {"id": int(body["chat_id"]), "type": "group", "title": "operators"}
    result = {"message_id": 1, "date": 0, "chat": chat, "text": text}
    return 200, {"ok": True, "result": result}, {"chat": chat["id"], "mode": body.get("parse_mode", ""), "text": text}


def ntfy(path: str, headers: Mapping[str, str], body: Any) -> tuple[int, Any, dict[str, Any]]:
    """Publish with a template. Source: docs.ntfy.sh/publish, "Inline templating" and "Authentication"."""
    url = urlsplit(path)
    asked = {name: values[0] for name, values in parse_qs(url.query).items()}
    if headers.get("Authorization") != f"Bearer {TOKEN}":
        return 403, {"code": 40301, "http": 403, "error": "forbidden"}, {}
    if url.path != f"/{TOPIC}" or asked.get("tpl") != "yes":
        return 404, {"code": 40401, "http": 404, "error": "page not found"}, {}
    # Both may have \n where a line ends.
    title, text = (go_template(asked[name], body).replace("\\n", "\n") for name in ("t", "m"))
    message = {"id": "x", "time": 1, "event": "message", "topic": TOPIC, "title": title, "message": text}
    return 200, message, {"title": title, "text": text}


def webhook(path: str, headers: Mapping[str, str], body: Any) -> tuple[int, Any, dict[str, Any]]:
    """Source: prometheus.io/docs/alerting/latest/configuration, "webhook_config"."""
    return (200, {}, {"body": body}) if path == HOOK else (404, {}, {})


SERVICES = {TELEGRAM: telegram, NTFY: ntfy, WEBHOOK: webhook}


def web(arrived: Arrived, tls: ssl.SSLContext) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            name = self.headers["Host"].partition(":")[0]
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, answer, what = SERVICES[name](self.path, dict(self.headers.items()), body)
            if status == 200:
                arrived.add(name, **what)
            else:
                arrived.add("refused", what=f"{name} answered {status}")
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 443), Handler)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    return server


def main(folder: Path, plain: bool) -> None:
    arrived = Arrived(folder / "arrived")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(folder / "server.pem", folder / "server.key")
    box = Mailbox(arrived)
    common = {"hostname": "127.0.0.1", "authenticator": box.login, "auth_required": True}
    # As Exchange and Postfix ask; what aiosmtpd asks by itself, Go's clients do not understand.
    SMTP.AuthLoginUsernameChallenge, SMTP.AuthLoginPasswordChallenge = "Username:", "Password:"
    if plain:
        Controller(box, port=587, auth_require_tls=False, **common).start()
    else:
        Controller(box, port=587, tls_context=tls, require_starttls=True, **common).start()
        # In TLS from the first byte: nobody is asked to begin it, and the session does not know of it.
        more = {"auth_require_tls": False, "auth_exclude_mechanism": ["LOGIN"]}
        Controller(box, port=465, ssl_context=tls, **common, **more).start()
    (folder / "ready").touch()
    web(arrived, tls).serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]), "plain" in sys.argv[2:])
