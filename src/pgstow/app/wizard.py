"""The use case: write a first settings file for a database."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from pgstow.config.first_file import DatabaseLook, first_file
from pgstow.config.problems import invalid
from pgstow.config.reading import parse_settings
from pgstow.core.errors import PgstowError, UsageError
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.first_look import database_name, tables_by_size
from pgstow.postgres.inspection import inspection_session, supabase_facts
from pgstow.postgres.pooler import is_supabase_host, refuse_transaction_pooler
from pgstow.postgres.session import translated
from pgstow.store.opening import check_location

__all__ = ["WizardReport", "write_first_file"]

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.+-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class WizardReport:
    """A settings file that was written, and the guesses in it."""

    file: Path
    database: str
    is_supabase: bool
    tables: int
    critical: tuple[str, ...]
    must_contain: tuple[str, ...]
    location: str


def write_first_file(conninfo: ConnInfo, *, location: str, output: Path) -> WizardReport:
    """Look at a database, without changing anything there, and write a settings file for it to ``output``.

    The file is durable when this returns; one that is there already is never touched. Raises UsageError,
    ConnectionFailed, PoolerRefused, PostgresError.
    """
    check_location(location)
    _refuse_existing(output)
    refuse_transaction_pooler(conninfo)
    look = _look(conninfo)
    made = first_file(look, location=location)
    reading = parse_settings(made.text.encode(), output)
    if (
        reading.settings is None
    ):  # a name in the database that we cannot write: better no file than a wrong one
        raise invalid(output, reading.errors)
    _write(output, made.text)
    return WizardReport(
        file=output,
        database=look.name,
        is_supabase=look.is_supabase,
        tables=len(look.tables),
        critical=made.critical,
        must_contain=made.must_contain,
        location=location,
    )


def _look(conninfo: ConnInfo) -> DatabaseLook:
    with inspection_session(conninfo) as session, translated("looking at the tables"):
        tables = tables_by_size(session)
        is_supabase = is_supabase_host(session.info.host) or supabase_facts(session) is not None
        dbname = database_name(session)
    name = _NOT_IN_NAMES.sub("-", dbname).lstrip("-.+")[:100] or "database"
    return DatabaseLook(
        name="supabase" if is_supabase and name == "postgres" else name,
        tables=tuple(tables),
        is_supabase=is_supabase,
    )


def _refuse_existing(output: Path) -> None:
    if output.exists() or output.is_symlink():
        raise UsageError(f"{output} is there already", hint="give --output FILE, or move it out of the way")


def _write(output: Path, text: str) -> None:
    """Write the file, unless one appeared meanwhile; nothing is left of it when that fails."""
    try:
        with output.open("x", encoding="utf-8") as stream:
            try:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            except BaseException:
                output.unlink()
                raise
    except FileExistsError:
        _refuse_existing(output)
        raise
    except OSError as exc:
        raise PgstowError(f"{output} cannot be written: {exc.strerror}") from exc
