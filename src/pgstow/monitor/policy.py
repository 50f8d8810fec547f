"""What counts as wrong, and who is told when."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["AlertPolicy", "Contact"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """Who is told, over which channels, and ``after_s`` seconds without an acknowledgement."""

    name: str
    channels: tuple[str, ...]
    after_s: float = 0.0
    phone: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertPolicy:
    """Thresholds of the rules, and the contacts in the order in which they are called.

    ``size_change`` is a share (0.2 is 20 %) of the median of recent backups of the same kind; smaller changes than
    ``size_floor_bytes`` never count. ``free_space`` is the share of a disk or quota below which storage is low.
    """

    size_change: float = 0.2
    size_floor_bytes: int = 10 * 1024 * 1024
    free_space: float = 0.1
    grace_s: float = 3600.0  # how late a backup may be
    repeat_s: float = 24 * 3600.0  # after which an open alert is told again
    contacts: tuple[Contact, ...] = ()
