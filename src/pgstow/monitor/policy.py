"""What counts as wrong, and who is told when."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["AlertPolicy", "Contact"]

_DAY_S = 24 * 3600.0


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
    ``size_floor_bytes`` never count, and of a table that is not critical fewer rows than ``rows_floor`` neither.
    ``free_space`` is the share of a disk or quota below which storage is low.
    """

    size_change: float = 0.2
    size_floor_bytes: int = 10 * 1024 * 1024
    rows_floor: int = 1000
    free_space: float = 0.1
    full_within_s: float = 14 * _DAY_S  # a forecast that is nearer is told
    grace_s: float = 3600.0  # how late a backup may be
    catch_up_s: float = _DAY_S  # how long a repository may lack a backup that another has
    verify_within_s: float = 35 * _DAY_S  # since a repository was last verified
    drill_within_s: float = 30 * _DAY_S  # since a backup of a database last passed a drill
    canary_within_s: float = 7 * _DAY_S  # since a test message of a channel was last acknowledged
    repeat_s: float = _DAY_S  # after which an open alert is told again
    contacts: tuple[Contact, ...] = ()
