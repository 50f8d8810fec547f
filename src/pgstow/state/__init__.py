"""The service's own database: the history of runs, hosts, slots and alerts. SQLite on one machine, PostgreSQL for a fleet.

The truth about backups is the repository: this database can be lost, and is made again.
"""

from __future__ import annotations

__all__: list[str] = []
