"""Who does something with a repository, and from where, by what the system tells."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Who", "who_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Who:
    """Who does something, and from where, as far as the system tells."""

    host: str
    user: str
    origin: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict)


def who_of(environ: Mapping[str, str]) -> Who:
    """Return who runs this process: names of the operating system, which say what a person claims, not more."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # containers run with ids that have no name
        user = str(os.getuid())
    facts = {"sudo_user": environ["SUDO_USER"]} if environ.get("SUDO_USER") else {}
    return Who(host=socket.gethostname(), user=user, origin=_origin(environ), facts=facts)


def _origin(environ: Mapping[str, str]) -> str | None:
    parts = []
    if given := environ.get("PGSTOW_ORIGIN"):
        parts.append(given)
    if client := environ.get("SSH_CONNECTION", "").split():
        parts.append(f"ssh from {client[0]}")
    if _parent_name() in ("cron", "crond", "anacron"):
        parts.append("cron")
    if environ.get("INVOCATION_ID"):
        parts.append("systemd")
    if environ.get("KUBERNETES_SERVICE_HOST"):
        parts.append("kubernetes")
    elif any(Path(mark).exists() for mark in ("/.dockerenv", "/run/.containerenv")):
        parts.append("container")
    return ", ".join(parts) or None


def _parent_name() -> str:
    try:
        return Path(f"/proc/{os.getppid()}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return ""
