"""pgstow: PostgreSQL backups that are proven by restore."""

__version__ = "0.1.0"
