"""Which backups are kept and which expire: pure functions of backups, policy and time."""

from __future__ import annotations

__all__: list[str] = []
