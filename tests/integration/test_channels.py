"""Channels and dead man's switches against real servers: what arrives, what is said when it does not, what is never said."""

from __future__ import annotations

import json
import logging
import ssl
import threading
import time
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path

import apprise
import pytest
from apprise.plugins.slack import NotifySlack

from pgstow.core.errors import UsageError
from pgstow.core.secrets import Secret
from pgstow.monitor.channels import AppriseChannel, BrokenChannel, cleaned
from pgstow.monitor.pings import Pings
from support.telling import Mailbox, Web, mail_server, web_server, write_authority

TITLE = "[pgstow] CRITICAL: backup missing shop/daily@offsite"
BODY = "Critical: it is not there\nWhat to do: make it <now> & *here*\n\nContacts: on call"
TOKENS = "T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
PASSWORD = "hunter2-hunter2"  # what stands in the addresses below


@pytest.fixture(scope="module", autouse=True)
def _plugins() -> None:
    """Load the plugins of apprise: some of their libraries use what a later Python will not have."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        apprise.Apprise().add("json://127.0.0.1/")


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's TLS context whose authority this process trusts."""
    path, context = write_authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(path))
    return context


@pytest.fixture
def web() -> Iterator[Web]:
    with web_server() as server:
        yield server


@pytest.fixture
def mailbox(authority: ssl.SSLContext) -> Iterator[Mailbox]:
    with mail_server(authority, user="pgstow", password=PASSWORD) as server:
        yield server


def mail_channel(mailbox: Mailbox, password: str = PASSWORD, **limits: float) -> AppriseChannel:
    url = (
        f"mailtos://pgstow:{password}@127.0.0.1:{mailbox.port}/oncall@example.org"
        "?from=pgstow@example.org&mode=starttls"
    )
    return AppriseChannel("mail", Secret(url), **limits)


def test_slack(authority: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    with web_server(authority) as web:
        monkeypatch.setattr(NotifySlack, "webhook_url", f"https://127.0.0.1:{web.port}/services")
        channel = AppriseChannel("slack", Secret(f"slack://{TOKENS}/#alerts"))
        assert channel.send(TITLE, BODY, is_critical=True) is None
        (post,) = web.posts
        assert post.path == f"/services/{TOKENS}"
        assert "it is not there" in post.body
        assert "backup missing shop/daily@offsite" in post.body
        web.status = 403
        error = channel.send(TITLE, BODY, is_critical=True)
    assert error is not None
    assert "403" in error
    assert not [token for token in TOKENS.split("/") if token in error]


def test_slack_by_the_address_that_slack_gives(
    authority: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    with web_server(authority) as web:
        monkeypatch.setattr(NotifySlack, "webhook_url", f"https://127.0.0.1:{web.port}/services")
        channel = AppriseChannel("slack", Secret(f"https://hooks.slack.com/services/{TOKENS}"))
        assert channel.send(TITLE, BODY, is_critical=False) is None
        assert [post.path for post in web.posts] == [f"/services/{TOKENS}"]


def test_mail_with_tls(mailbox: Mailbox) -> None:
    assert mail_channel(mailbox).send(TITLE, BODY, is_critical=True) is None
    (mail,) = mailbox.mails
    assert mail["Subject"] == TITLE
    assert mailbox.recipients == ["oncall@example.org"]
    text = mail.get_body(("plain",))
    assert text is not None
    assert text.get_content().split() == BODY.split()


def test_mail_that_is_refused(mailbox: Mailbox) -> None:
    error = mail_channel(mailbox, password="wrong-wrong").send(TITLE, BODY, is_critical=True)
    assert error is not None
    assert "535" in error
    assert "wrong-wrong" not in error
    mailbox.refuses = True
    assert mail_channel(mailbox).send(TITLE, BODY, is_critical=True) is not None
    assert mailbox.mails == []


def test_mail_to_a_server_whose_certificate_nobody_trusts(tmp_path: Path) -> None:
    _, context = write_authority(tmp_path)
    with mail_server(context, user="pgstow", password=PASSWORD) as mailbox:
        assert mail_channel(mailbox).send(TITLE, BODY, is_critical=True) is not None
        assert mailbox.mails == []


def test_webhook_over_https(authority: ssl.SSLContext) -> None:
    with web_server(authority) as web:
        url = f"jsons://user:{PASSWORD}@127.0.0.1:{web.port}/hook?+X-Token={PASSWORD}"
        assert AppriseChannel("hook", Secret(url)).send(TITLE, BODY, is_critical=True) is None
    (post,) = web.posts
    document = json.loads(post.body)
    assert post.path.startswith("/hook")
    assert (document["title"], document["message"]) == (TITLE, BODY)
    assert document["type"] == "failure"
    assert post.headers["X-Token"] == PASSWORD


def test_nothing_secret_is_said_anywhere(
    web: Web, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # A handler of our own, as a service has one: pytest's also listens to loggers that hand nothing on.
    logged: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = logged.append  # type: ignore[method-assign]
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    monkeypatch.setattr(logging.getLogger(), "level", logging.DEBUG)
    web.status, web.answer = 500, f"you said {PASSWORD}".encode()
    urls = [
        f"json://user:{PASSWORD}@127.0.0.1:{web.port}/{PASSWORD}",
        f"json://user:{PASSWORD}@127.0.0.1:1/{PASSWORD}?-key={PASSWORD}",
        f"nonsense://{PASSWORD}",
        f"slack://{PASSWORD}",
        PASSWORD,
    ]
    for url in urls:
        channel = AppriseChannel("hook", Secret(url))
        error = channel.send(TITLE, BODY, is_critical=True)
        assert error, url
        assert PASSWORD not in error + repr(channel), url
    assert PASSWORD not in "".join(capfd.readouterr())
    assert [record for record in logged if PASSWORD in record.getMessage()] == []


def test_a_service_that_sends_an_answer_byte_by_byte(web: Web) -> None:
    web.answer, web.delay_s = b"x" * 10_000, 0.1
    channel = AppriseChannel("slow-answers", Secret(f"json://127.0.0.1:{web.port}/"), limit_s=0.5)
    error = channel.send(TITLE, BODY, is_critical=True)
    assert error is not None
    assert channel.send(TITLE, BODY, is_critical=True) is not None
    assert [thread.name for thread in threading.enumerate()].count("channel-slow-answers") <= 1


def test_a_channel_without_an_address() -> None:
    channel = BrokenChannel("slack", UsageError("channels.slack.url: the variable HOOK is not set"))
    assert channel.send(TITLE, BODY, is_critical=True) == "channels.slack.url: the variable HOOK is not set"


def test_cleaning() -> None:
    url = Secret("mailtos://me%40x:pa%20ss%2Fword@smtp.example.org/a@example.org?smtp=x&user=hidden-user")
    said = "smtp.example.org said: pa ss/word, pa%20ss%2Fword of hidden-user\nis wrong" + "!" * 1000
    text = cleaned(said, url)
    assert text.startswith("smtp.example.org said: ***, *** of *** is wrong")
    assert len(text) < 400
    assert "bot123token" not in cleaned("no bot123token", Secret("tgram://bot123token/1234"))


# Dead man's switches


def test_pings(web: Web) -> None:
    heard: list[str | None] = []
    pings = Pings(Secret(f"http://127.0.0.1:{web.port}/ping/{PASSWORD}?create=1"), pinged=heard.append)
    run_id = str(uuid.uuid4())
    for signal in ("start", "log", "success", "fail", 3):
        assert pings.ping(signal, run_id=run_id, text=f"it is {signal}") is None  # type: ignore[arg-type]
    assert [post.path for post in web.posts] == [
        f"/ping/{PASSWORD}{suffix}?create=1&rid={run_id}" for suffix in ("/start", "/log", "", "/fail", "/3")
    ]
    assert [post.body for post in web.posts][:2] == ["it is start", "it is log"]
    assert heard == [None] * 5
    assert PASSWORD not in repr(pings)


def test_pings_over_https(authority: ssl.SSLContext) -> None:
    with web_server(authority) as web:
        assert Pings(Secret(f"https://localhost:{web.port}/id")).ping("success", run_id="1") is None
        assert web.posts[0].path == "/id?rid=1"


def test_pings_that_fail_say_so_and_nothing_else(web: Web) -> None:
    heard: list[str | None] = []
    web.status = 500
    pings = Pings(Secret(f"http://127.0.0.1:{web.port}/{PASSWORD}"), pinged=heard.append)
    error = pings.ping("success", run_id="1")
    assert error == "the service answered 500 Internal Server Error"
    assert len(web.posts) == 3
    urls = [f"http://127.0.0.1:1/{PASSWORD}", f"ftp://{PASSWORD}", PASSWORD, f"http://a b/{PASSWORD}"]
    for url in urls:
        error = Pings(Secret(url), pinged=heard.append).ping("fail", run_id="1")
        assert error is not None, url
        assert PASSWORD not in error
    assert len(heard) == 5
    assert None not in heard


def test_a_ping_that_is_answered_byte_by_byte(web: Web) -> None:
    web.answer, web.delay_s = b"x" * 10_000, 0.1
    began = time.monotonic()
    pings = Pings(Secret(f"http://127.0.0.1:{web.port}/"), limit_s=0.2)
    assert pings.ping("success", run_id="1") == "no answer within 0 s"
    assert len(web.posts) == 3
    assert time.monotonic() >= began + 0.6  # it was tried as often as it is meant to be


def test_a_long_text_keeps_its_end(web: Web) -> None:
    Pings(Secret(f"http://127.0.0.1:{web.port}/")).ping("fail", run_id="1", text="a" * 20_000 + "the end")
    assert len(web.posts[0].body) == 10_000
    assert web.posts[0].body.endswith("the end")
