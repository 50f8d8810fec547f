"""Ways to tell somebody. A channel never raises and never takes longer than its limit: it says whether it was taken.

apprise speaks to the services. It says nothing when an address makes no sense or a service refuses, unless it is asked:
so what it returns is looked at, and its log is where the reason is found. Addresses hold secrets: whatever is said about
a failure is cleaned of every part of them.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

from pgstow.core.errors import Interrupted, PgstowError
from pgstow.core.secrets import Secret

if TYPE_CHECKING:
    import apprise

__all__ = ["LIMIT_S", "AppriseChannel", "BrokenChannel", "Channel", "cleaned"]

LIMIT_S = 30.0  # for one message, whatever the other side does
_CONNECT_S = 10.0
_SHORTEST = 4  # shorter parts of an address tell nothing and would blank half of a sentence
_WITH_HOST = {"mailto", "mailtos", "json", "jsons", "xml", "xmls", "form", "forms", "http", "https"}
_PARTS = re.compile(r"[/?&=:@,;+#]")
_REASON = "Socket Exception: "  # how apprise begins what a connection said
_NO_ADDRESS = "its address is not one that apprise understands"
_SAID = 300  # characters of a reason that are kept


class Channel(Protocol):
    """One way to tell somebody."""

    @property
    def name(self) -> str: ...

    def send(self, title: str, body: str, *, is_critical: bool) -> str | None:
        """Return None once the service took the message, else why it did not: without secrets. Never raises."""
        ...


class BrokenChannel:
    """A channel whose address cannot be had: every message fails with the reason."""

    def __init__(self, name: str, error: PgstowError) -> None:
        self.name = name
        self._why = error.message

    def send(self, title: str, body: str, *, is_critical: bool) -> str | None:  # noqa: ARG002  the Protocol's
        return self._why


class AppriseChannel:
    """A channel with an address as apprise writes them.

    A message that takes longer than ``limit_s`` is given up, though it may still arrive. Until it has ended nothing else
    is sent over this channel: threads that hang do not pile up.
    """

    def __init__(self, name: str, url: Secret, *, limit_s: float = LIMIT_S) -> None:
        self.name = name
        self._url = url
        self._limit_s = limit_s
        self._hanging: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"AppriseChannel({self.name!r})"

    def send(self, title: str, body: str, *, is_critical: bool) -> str | None:
        if self._hanging is not None and self._hanging.is_alive():
            return "the message before this one still hangs"
        said: list[str | None] = []

        def work() -> None:
            said.append(self._guarded(lambda: self._send(title, body, is_critical=is_critical)))

        # A daemon: the process does not wait for a service that never answers.
        self._hanging = threading.Thread(target=work, name=f"channel-{self.name}", daemon=True)
        self._hanging.start()
        self._hanging.join(self._limit_s)
        if not said:
            return f"no answer within {self._limit_s:.0f} s; the message may still arrive"
        return said[0]

    def _guarded(self, send: Callable[[], str | None]) -> str | None:
        try:
            return send()
        except Interrupted:
            raise
        except Exception as exc:  # noqa: BLE001  a service's plugin must not end an evaluation, whatever it does
            return cleaned(f"{type(exc).__name__}: {exc}", self._url)

    def problem(self) -> str | None:
        """Return what is wrong with the address as such; nothing is sent. Whether it reaches anybody is another question."""
        return self._guarded(lambda: None if self._services() is not None else _NO_ADDRESS)

    def _services(self) -> apprise.Apprise | None:
        """Return what apprise makes of the address; None where it makes nothing of it."""
        _silence_log()
        # Loading apprise takes a good part of a second, which only those pay who have something to tell.
        import apprise  # noqa: PLC0415

        # No tagline and no picture from somewhere; nothing is kept on disk.
        asset = apprise.AppriseAsset(app_id="pgstow", app_desc="pgstow", image_url_mask="", image_url_logo="")
        services = apprise.Apprise(asset=asset)
        return services if services.add(_with_limits(self._url.reveal())) and len(services) else None

    def _send(self, title: str, body: str, *, is_critical: bool) -> str | None:
        import apprise  # noqa: PLC0415  as above

        services = self._services()
        if services is None:
            return _NO_ADDRESS
        answer = services.notify(
            title=title,
            body=body,
            notify_type=apprise.NotifyType.FAILURE if is_critical else apprise.NotifyType.INFO,
            body_format=apprise.NotifyFormat.TEXT,
            timeout=self._limit_s,
            log_level=logging.DEBUG,  # where the reason of a connection that failed is found
        )
        if answer:
            return None
        reasons = [
            entry.message.removeprefix(_REASON)
            for entry in answer.logs()
            if entry.level in ("WARNING", "ERROR") or entry.message.startswith(_REASON)
        ]
        return cleaned("; ".join(reasons) or answer.status.name.lower(), self._url)


def _with_limits(url: str) -> str:
    """Return the address with apprise's own limits of connecting and reading, unless it sets them itself."""
    if re.search(r"[?&](?:cto|rto)=", url):
        return url
    return f"{url}{'&' if '?' in url else '?'}cto={_CONNECT_S:.0f}&rto={_CONNECT_S:.0f}"


def _silence_log() -> None:
    """Keep what apprise and the library below it log from terminals and files: it quotes addresses.

    apprise's own capture still hears it.
    """
    logging.getLogger("urllib3.connectionpool").setLevel(logging.INFO)
    log = logging.getLogger("apprise")
    log.propagate = False
    log.setLevel(logging.DEBUG)  # or the reasons below would never be made
    if not log.handlers:
        log.addHandler(logging.NullHandler())


def cleaned(text: str, url: Secret) -> str:
    """Return ``text`` without the address and without any part of it that could be a secret.

    The name of a host stays; in the addresses of many services a token stands at its place.
    """
    whole = url.reveal()
    scheme, _, rest = whole.partition("://")
    host = (urlsplit(whole).hostname or "") if scheme.lower() in _WITH_HOST else ""
    parts = {part for part in _PARTS.split(rest) if len(part) >= _SHORTEST and part.lower() not in host}
    for part in sorted({whole, rest, *parts, *map(unquote, parts)}, key=len, reverse=True):
        text = text.replace(part, "***")
    text = " ".join(text.split())
    return text if len(text) <= _SAID else f"{text[:_SAID]}..."
