"""Real servers that messages are sent to: HTTP and HTTPS, and SMTP with TLS. They remember what they were sent."""

from __future__ import annotations

import asyncio
import contextlib
import email
import email.policy
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

__all__ = ["Mailbox", "Post", "Web", "mail_server", "web_server", "write_authority"]


@dataclass(frozen=True)
class Post:
    """One request."""

    path: str
    body: str
    headers: dict[str, str]


@dataclass
class Web:
    """What a web server got, and what it answers. ``delay_s`` is how long each byte of an answer takes."""

    posts: list[Post] = field(default_factory=list)
    status: int = 200
    answer: bytes = b"ok"
    delay_s: float = 0.0
    port: int = 0
    closing: threading.Event = field(default_factory=threading.Event)  # a slow answer ends with its server


@contextlib.contextmanager
def web_server(tls: ssl.SSLContext | None = None) -> Iterator[Web]:
    """Run a web server on a port of its own for a block."""
    web = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            web.posts.append(Post(self.path, body, dict(self.headers)))
            self.send_response(web.status)
            self.send_header("Content-Length", str(len(web.answer)))
            self.end_headers()
            with contextlib.suppress(OSError):  # the other side may have given up
                for byte in web.answer:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    if web.closing.wait(web.delay_s):
                        return

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    web.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        web.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def write_authority(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Return a file with the certificate of a new authority, and a server's context for 127.0.0.1 and localhost."""
    authority = trustme.CA()
    path = folder / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return path, context


@dataclass
class Mailbox:
    """What a mail server took. ``refuses`` makes it refuse every recipient."""

    mails: list[EmailMessage] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    refuses: bool = False
    port: int = 0

    async def handle_RCPT(  # noqa: N802  the name that aiosmtpd looks for
        self,
        server: SMTP,
        session: Session,
        envelope: Envelope,
        address: str,
        options: list[str],
    ) -> str:
        if self.refuses:
            return "550 no such person"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        assert isinstance(envelope.content, bytes)
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        self.recipients += envelope.rcpt_tos
        return "250 taken"


@contextlib.contextmanager
def mail_server(tls: ssl.SSLContext, *, user: str, password: str) -> Iterator[Mailbox]:
    """Run a mail server for a block that takes nothing without STARTTLS and the right password."""
    mailbox = Mailbox()

    def authenticate(
        server: SMTP,
        session: Session,
        envelope: Envelope,
        mechanism: str,
        given: object,
    ) -> AuthResult:
        is_right = isinstance(given, LoginPassword) and (given.login, given.password) == (
            user.encode(),
            password.encode(),
        )
        return AuthResult(success=is_right, handled=False)

    controller = Controller(
        mailbox,
        hostname="127.0.0.1",
        port=0,
        tls_context=tls,
        require_starttls=True,
        authenticator=authenticate,
        auth_required=True,
        auth_require_tls=True,
    )

    def knock() -> None:
        # The controller looks whether it answers, but at the port it was given, which is 0.
        assert isinstance(controller.server, asyncio.Server)
        mailbox.port = controller.server.sockets[0].getsockname()[1]
        socket.create_connection(("127.0.0.1", mailbox.port)).close()

    controller._trigger_server = knock  # type: ignore[method-assign]
    controller.start()
    try:
        yield mailbox
    finally:
        controller.stop()
