"""A first settings file for a database that was looked at: guesses, each with its reason beside it.

Pure: what was found goes in, the text of the file comes out. No secret can get into it: the connection is a variable.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pgstow.postgres.first_look import TableLook, TimeColumn

__all__ = ["URL_VARIABLE", "DatabaseLook", "FirstFile", "first_file"]

URL_VARIABLE = "DATABASE_URL"

# Words of tables that money or obligations are kept in.
_PRECIOUS = frozenset(
    (
        "accounting", "balance", "balances", "booking", "bookings", "charge", "charges", "entries", "invoice", "invoices",
        "journal", "ledger", "ledgers", "order", "orders", "payment", "payments", "payout", "payouts", "refund", "refunds",
        "reservation", "reservations", "settlement", "settlements", "transaction", "transactions", "transfer", "transfers",
        "wallet", "wallets",
    )
)  # fmt: skip
_MOST_PRECIOUS = frozenset(
    ("accounting", "booking", "bookings", "journal", "ledger", "ledgers", "transaction", "transactions")
)
_MOST_CRITICAL = 6
_TIME_COLUMNS = ("created_at", "inserted_at", "updated_at", "booked_at", "occurred_at", "created", "updated")
# Schemas that a platform fills and looks after itself; a table of theirs is never guessed to be critical.
_PLATFORM = re.compile(
    r"auth|storage|realtime|_realtime|vault|extensions|cron|net|graphql(_public)?|pgbouncer|pgsodium.*|pgmq.*|_analytics"
    r"|supabase_.*"
)
_WRITABLE = re.compile(r"[^\W.][\w $-]*\.[^\W.][\w.$ -]*")  # what can stand in the file as SCHEMA.TABLE
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_LISTED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseLook:
    """What was found: ``name`` is what backups of the database will be called."""

    name: str
    tables: tuple[TableLook, ...]  # the largest first
    is_supabase: bool

    @property
    def own_tables(self) -> list[TableLook]:
        """The tables that can be named in the file and are no platform's."""
        return [
            table
            for table in self.tables
            if _WRITABLE.fullmatch(table.qualified)
            and "." not in table.schema
            and not _PLATFORM.fullmatch(table.schema)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstFile:
    """The text of a settings file, and what was guessed in it."""

    text: str
    critical: tuple[str, ...]
    must_contain: tuple[str, ...]


def first_file(look: DatabaseLook, *, location: str) -> FirstFile:
    """Return a settings file that backs up the database into the repository at ``location``."""
    critical = _critical(look)
    must_contain = [table.qualified for table in critical]
    if any(table.qualified == "auth.users" for table in look.tables):
        must_contain.insert(0, "auth.users")
    lines = [
        *_head(),
        *_database(look, critical, must_contain),
        *_repositories(location),
        *_plans(has_critical=bool(critical)),
        *_TAIL.split("\n"),
    ]
    return FirstFile(
        text="\n".join(lines).rstrip("\n") + "\n",
        critical=tuple(table.qualified for table in critical),
        must_contain=tuple(must_contain),
    )


def _critical(look: DatabaseLook) -> list[TableLook]:
    """Return the tables that look like ledgers, bookings and the like: by their names, then by size."""
    found = [table for table in look.own_tables if _words(table) & _PRECIOUS]
    found.sort(key=lambda table: (not _words(table) & _MOST_PRECIOUS, -table.size_bytes, table.qualified))
    return found[:_MOST_CRITICAL]


def _words(table: TableLook) -> set[str]:
    """Return the words of a table's name: ``wallet_ledger`` and ``WalletLedger`` are two each."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", table.name)}


def _time_column(table: TableLook) -> TimeColumn | None:
    """Return the column that most likely says when a row was made: the usual names first, then what has an index."""

    def rank(column: TimeColumn) -> tuple[bool, bool, int]:
        is_usual = column.name in _TIME_COLUMNS
        return not is_usual, not column.is_indexed, _TIME_COLUMNS.index(column.name) if is_usual else 0

    writable = [column for column in table.time_columns if _PLAIN.fullmatch(column.name)]
    return min(writable, key=rank, default=None)


def _scalar(text: str) -> str:
    """Return a name of the database as a YAML value."""
    return text if _PLAIN.fullmatch(text) and text.lower() != "null" else "'" + text.replace("'", "''") + "'"


def _size(size_bytes: int) -> str:
    for unit, letters in ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB")):
        if size_bytes >= unit:
            return f"{size_bytes / unit:.1f} {letters}"
    return f"{size_bytes} bytes"


def _head() -> list[str]:
    return [
        "# Settings of pgstow, written by pgstow init --wizard from what it found. Read it through, change what does not fit,",
        "# and keep it under version control: it holds no secret and should never hold one.",
        "#",
        "#   pgstow config check --resolve     says what is wrong or missing",
        "#   pgstow config show                shows every setting, defaults included",
        "",
        "time_zone: UTC",
        "",
    ]


def _database(look: DatabaseLook, critical: Sequence[TableLook], must_contain: Sequence[str]) -> list[str]:
    lines = [
        "databases:",
        f"  {look.name}: # what its backups are called: do not change it later",
        f"    url: ${{{URL_VARIABLE}}}",
    ]
    if look.is_supabase:
        lines += [
            "    # Supabase: use the session pooler (port 5432 of ...pooler.supabase.com) or the direct connection, which needs",
            "    # IPv6. Port 6543, the transaction pooler, cannot carry a backup.",
            "    # Files in Storage are in no database backup: only their names are. Copy the files themselves with another tool.",
        ]
    lines += _critical_lines(look, critical)
    lines.append("    # A backup without one of these is a failed backup.")
    if must_contain:
        lines += ["    must_contain:", *(f"      - {_scalar(name)}" for name in must_contain)]
    else:
        lines += ["    # must_contain:", "    #   - public.users"]
    others = [table for table in look.own_tables if table.qualified not in must_contain][:_LISTED]
    if others:
        lines.append("    # Other tables, the largest first:")
        lines += [f"    #   - {_scalar(table.qualified)} # {_size(table.size_bytes)}" for table in others]
    return [
        *lines,
        "    rpo: 7h # how much of the critical tables may be lost, as time: six hours between backups, and time to make one"
        if critical
        else "    rpo: 26h # how much may be lost, as time: a day between backups, and time to make one",
        "    rto: 4h # how long a restore may take",
        "    # What must be true of the rows: drills check it of what they restored.",
        "    # assertions:",
        *_assertion_example(critical),
        "",
    ]


def _assertion_example(critical: Sequence[TableLook]) -> list[str]:
    table = critical[0].qualified if critical else "public.orders"
    name = ".".join('"' + part.replace('"', '""') + '"' for part in table.split(".", 1))
    return [
        f"    #   - name: {_scalar(f'rows of {table}')}",
        f"    #     sql: SELECT count(*) FROM {name}",
        "    #     same_as_backup: true # or equals, at_least, at_most, null: true",
    ]


def _critical_lines(look: DatabaseLook, critical: Sequence[TableLook]) -> list[str]:
    if not critical:
        lines = [
            "    # No table has a name like ledger, bookings or payments. The plan critical needs at least one table here:"
        ]
        lines += ["    # critical:"]
        examples = [table for table in look.own_tables if table.time_columns][:3]
        for table in examples:
            column = _time_column(table)
            lines.append(f"    #   - table: {_scalar(table.qualified)} # {_size(table.size_bytes)}")
            lines += [f"    #     time_column: {_scalar(column.name)}"] if column else []
        return lines if examples else [*lines, "    #   - table: public.orders"]
    lines = [
        "    # Backed up by themselves every six hours, besides being in every backup. Guessed by their names and sizes;",
        "    # the time column says how fresh a backup is.",
        "    critical:",
    ]
    for table in critical:
        lines.append(f"      - table: {_scalar(table.qualified)} # {_size(table.size_bytes)}")
        column = _time_column(table)
        if column is not None:
            lines.append(
                f"        time_column: {_scalar(column.name)}"
                + ("" if column.is_indexed else " # has no index")
            )
        else:
            lines.append("        # time_column: no column of type timestamptz or timestamp was found")
    return lines


def _repositories(location: str) -> list[str]:
    is_remote = "://" in location and not location.startswith("file:")
    name = "offsite" if is_remote else "local"
    lines = [
        "repositories:",
        f"  {name}:",
        f"    location: {_quoted(location)}",
        "    # A file beside this one, for instance from: (umask 077; head -c 32 /dev/urandom | base64 > repository-password)",
        "    # Keep a copy elsewhere: without it nobody can read the backups. Keep it out of version control.",
        "    password: file:repository-password",
    ]
    credentials = [
        "    environment:",
        "      AWS_ACCESS_KEY_ID: ${OFFSITE_KEY_ID}",
        "      AWS_SECRET_ACCESS_KEY: ${OFFSITE_KEY_SECRET}",
        "      AWS_REGION: eu-central-1",
    ]
    if is_remote:
        return [*lines, *(f"    #{line[3:]}" for line in credentials), ""]
    return [
        *lines,
        "  # A second copy, elsewhere. One backup reads the database once and goes to every repository.",
        "  # offsite:",
        "  #   location: s3://BUCKET/pgstow",
        "  #   password: file:repository-password",
        *(f"  # {line[2:]}" for line in credentials),
        "",
    ]


def _quoted(location: str) -> str:
    return (
        location if re.fullmatch(r"[A-Za-z0-9/_.:~-]+", location) else "'" + location.replace("'", "''") + "'"
    )


def _plans(*, has_critical: bool) -> list[str]:
    mark = "" if has_critical else "# "
    return [
        "# Cron expressions: minute hour day month weekday. A plan without databases or repositories is for all of them.",
        "plans:",
        "  daily:",
        '    schedule: "0 2 * * *"',
        "    catch_up: 6h # how late a run that was missed is still made up for",
        f"  {mark}critical: # only the critical tables",
        f'  {mark}  schedule: "0 */6 * * *"',
        f"  {mark}  jitter: 5m",
        "  weekly:",
        '    schedule: "0 3 * * 0"',
        "    catch_up: 1d",
        "  monthly:",
        '    schedule: "0 4 1 * *"',
        "    catch_up: 3d",
        "  annual:",
        '    schedule: "0 5 1 1 *"',
        "    catch_up: 14d",
        "  # dr: # for disaster recovery, once there is a repository elsewhere",
        '  #   schedule: "0 6 1 * *"',
        "  #   repositories: [offsite]",
        "  pre-deployment: {} # without a schedule: run on demand, before a release",
        "  retention:",
        '    schedule: "30 4 * * *"',
        "  verify:",
        '    schedule: "0 8 * * 6"',
        "  # Restores one backup on a throwaway server of this machine, checks every row, and measures how long that takes.",
        "  # Twice a month, so that never 30 days pass without one (alerts: drill_within), and every kind of backup has its turn",
        "  # within a year; a week later is early enough where this machine was off.",
        "  drill:",
        '    schedule: "0 9 1,15 * *"',
        "    catch_up: 7d",
        "    # strategy: rotate # what was proven longest ago; or latest, random, oldest",
        "    # server: ${DRILL_URL} # restore in a database of its own there, instead of on this machine",
        "",
    ]


_TAIL = """\
# How long backups are kept, by kind; at least so many are kept however old they are.
retention:
  rules:
    critical: 7d
    daily: {days: 30d, at_least: 7}
    weekly: {days: 90d, at_least: 4}
    monthly: {days: 365d, at_least: 3}
    annual: {days: 2557d, at_least: 1} # seven years
    pre-deployment: 365d
    dr: {days: 365d, at_least: 2}

alerts:
  size_change: 20%
  grace: 1h

# Who is told. Channels are apprise URLs, which hold secrets: variables, files or commands give them.
# contacts:
#   - name: on call
#     channels: [slack]
#   - name: head of engineering
#     channels: [mail]
#     after: 1h
# channels:
#   slack: ${SLACK_URL}
#   mail: ${MAIL_URL}
"""
