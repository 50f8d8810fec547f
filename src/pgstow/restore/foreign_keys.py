"""Setting foreign keys one by one, where some may not be possible."""

from __future__ import annotations

from collections.abc import Sequence

from pgstow.core.errors import ConnectionFailed, PostgresError
from pgstow.postgres.archive import Section, Toc, TocEntry
from pgstow.postgres.raw import RawSession
from pgstow.restore.naming import altered_table, text
from pgstow.restore.report import UnsetForeignKey

__all__ = ["set_foreign_keys"]


def set_foreign_keys(session: RawSession, toc: Toc, keys: Sequence[TocEntry]) -> list[UnsetForeignKey]:
    """Set each foreign key and its comment; return those that the target refuses, with its reason.

    A table that was chosen by itself may point to tables that are not there, or to rows that are gone.
    """
    encoding = toc.encoding
    unset: list[UnsetForeignKey] = []
    for key in keys:
        schema, table = altered_table(key) or (key.namespace, b"")
        name = text(key.tag.removeprefix(table + b" "), encoding)
        remarks = [
            e.defn or b"" for e in toc.entries if e.section is Section.NONE and key.dump_id in e.dependencies
        ]
        try:
            session.execute(b"\n".join([key.defn or b"", *remarks]), doing=f"setting foreign key {name}")
        except ConnectionFailed:
            raise
        except PostgresError as exc:
            where = f"{text(schema or key.namespace, encoding)}.{text(table, encoding)}"
            unset.append(
                UnsetForeignKey(table=where, name=name, reason=exc.message.partition(": ")[2] or exc.message)
            )
    return unset
