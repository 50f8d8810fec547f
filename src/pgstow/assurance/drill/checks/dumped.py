"""What pg_dump would write of the restored database, beside what it wrote of the source.

pg_dump knows every kind of object there is, and its table of contents is complete before the first row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pgstow.assurance.drill.checks.restored import Restored
from pgstow.capture.contents import read_contents
from pgstow.catalog.manifest import Selection
from pgstow.core.errors import ToolMissing
from pgstow.postgres.archive import Toc, TocEntry
from pgstow.postgres.programs import no_timeouts
from pgstow.postgres.raw import RawSession
from pgstow.restore.naming import text

__all__ = ["Key", "Side", "dumped_again", "incomparable", "key_text"]

_LOCK_TIMEOUT_S = 60.0

Key = tuple[str, str, str]  # kind, schema, name


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """The entries of one archive by kind and name: an operator's name may stand for several."""

    encoding: str
    entries: dict[Key, list[TocEntry]]

    @classmethod
    def of(cls, toc: Toc, keep: Callable[[TocEntry], bool]) -> Side:
        encoding = toc.encoding
        entries: dict[Key, list[TocEntry]] = {}
        for entry in toc.entries:
            if keep(entry):
                key = (text(entry.desc, encoding), text(entry.namespace, encoding), text(entry.tag, encoding))
                entries.setdefault(key, []).append(entry)
        return cls(encoding=encoding, entries=entries)


def dumped_again(restored: Restored, session: RawSession) -> Toc:
    """Return the table of contents of the restored database. Raises ToolMissing without pg_dump."""
    context = restored.context
    if context.tools is None:
        raise ToolMissing("pg_dump was not given", hint="install the client programs of the server's release")
    session.execute(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", doing="beginning to read")
    try:
        snapshot = session.value(b"SELECT pg_catalog.pg_export_snapshot()", doing="exporting a snapshot")
        return read_contents(
            context.tools,
            context.target,
            snapshot=session.decode(snapshot),
            selection=Selection(),
            lock_timeout_s=_LOCK_TIMEOUT_S,
            settings=no_timeouts(restored.version_num),
        ).toc
    finally:
        session.execute(b"ROLLBACK", doing="ending to read")


def incomparable(restored: Restored) -> str | None:
    """Return why pg_dump prints definitions in another way than it did; None if it does not."""
    archive, tools = restored.toc.header.pg_dump_version or b"", restored.context.tools
    made_by = archive.split(b".")[0].decode("ascii", "replace")
    if tools is not None and made_by != str(tools.version[0]):
        return f"the archive was made by pg_dump {made_by}, and this one is {tools.version[0]}"
    source, here = restored.manifest.server.version_num // 10000, restored.version_num // 10000
    return f"the source was PostgreSQL {source}, this server is {here}" if source != here else None


def key_text(key: Key) -> str:
    """Return a kind with its name for people."""
    kind, schema, name = key
    return f"{kind.lower()} {schema}.{name}" if schema else f"{kind.lower()} {name}"
