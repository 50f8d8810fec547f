"""The manifest of a logical backup: ``/NAME/manifest.json``.

It is a documented, versioned contract (docs/repository.md). Readers accept unknown keys of the same
``format``: a newer minor version may add some. Times are aware and UTC, sizes are bytes.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pgstow.core.errors import RepositoryDamaged

__all__ = [
    "MANIFEST_FORMAT",
    "ConfigurationRecord",
    "ExtensionRecord",
    "GlobalsRecord",
    "ImportRecord",
    "LargeObjectsRecord",
    "Manifest",
    "NewestOfPartitioned",
    "NewestRow",
    "RecordedValue",
    "ReuseRecord",
    "RootName",
    "Selection",
    "ServerRecord",
    "SettingRecord",
    "TableRecord",
    "Totals",
    "Warning_",
    "parse_manifest",
]

MANIFEST_FORMAT = 1


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Selection(_Record):
    """What the user asked to leave in or out: tables by name, all else in pg_dump's pattern language."""

    tables: tuple[
        str, ...
    ] = ()  # these alone, with their partitions; QualifiedName says how they are written
    schemas: tuple[str, ...] = ()
    exclude_schemas: tuple[str, ...] = ()
    exclude_tables: tuple[str, ...] = ()
    exclude_table_data: tuple[str, ...] = ()

    @property
    def is_partial(self) -> bool:
        return bool(
            self.tables
            or self.schemas
            or self.exclude_schemas
            or self.exclude_tables
            or self.exclude_table_data
        )


class ServerRecord(_Record):
    """The server and database as the backup's own session saw them."""

    system_identifier: str | None  # decimal; None where the connection may not see it
    version_num: int
    version: str
    database: str
    database_oid: int
    encoding: str
    collate: str
    ctype: str
    locale_provider: str
    icu_locale: str | None = None
    timeline: int | None = None
    lsn: str | None  # insert (or replay) position right after the snapshot was exported
    is_standby: bool
    postmaster_start: datetime | None
    oldest_xid: int | None = None  # of the snapshot, 64-bit: every transaction below it had ended
    next_xid: int | None = None
    tls: str | None  # negotiated protocol version; None: not encrypted
    via: Literal["socket", "loopback", "network"] | None = None  # how it was reached; None: not recorded
    host: str


class RootName(_Record):
    """The partitioned table that receives rows loaded via the partition root."""

    schema_: str = Field(alias="schema")
    name: str

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class NewestRow(_Record):
    """The newest value of a table's time column under the snapshot, as PostgreSQL prints it; None in an empty table."""

    column: str
    value: str | None


class NewestOfPartitioned(_Record):
    """The newest value among all partitions of a table, as NewestRow is of a table that holds rows itself."""

    schema_: str = Field(alias="schema")
    name: str
    column: str
    value: str | None

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class RecordedValue(_Record):
    """What an assertion's query gave under the snapshot: a value as PostgreSQL prints it (None: NULL), or an error."""

    name: str
    sql: str
    value: str | None = None
    error: str | None = None


class ImportRecord(_Record):
    """Where an imported backup came from: a dump that somebody else made."""

    file: str  # its name, without the folder
    format: str  # custom | directory | tar | plain
    compression: str | None = None
    sha256: str | None = None  # of the file; None for a directory
    size_bytes: int
    dumped_by: str | None = None  # version of the pg_dump that made it
    is_dated: bool = True  # the dump itself says when it was begun; else it is the time of the file


class TableRecord(_Record):
    """One member with table data. Rows and bytes are counted from the stream itself."""

    dump_id: int
    member: str  # relative to the backup, e.g. archive/3456.dat
    oid: int
    schema_: str = Field(alias="schema")
    name: str
    rows: int
    size_bytes: int  # of the member, trailer included
    heap_bytes: int | None = (
        None  # what the rows took in the source, TOAST apart; older backups and dumps do not say
    )
    toast_bytes: int | None = None
    index_bytes: int | None = (
        None  # about, of all its indexes together; None where the server had never counted
    )
    pages: int = 0
    pages_per_range: int = 0
    ranges: str | None = None  # member with the page-range index, e.g. ranges/3456
    load_via_root: RootName | None = None
    condition: str | None = None  # extension configuration table: only rows matching it were saved
    extension_owned: bool = False
    read_by: str  # copy | copy-condition | tid-ranges
    filenode: int | None = None
    shape: str | None = None  # SHA-256 of columns and types, all the way down
    reused_rows: int = 0  # of them were not read: their pages hold what they held at the base
    reused_bytes: int = 0
    reused_ranges: int = 0
    new_bytes: int | None = None  # plain bytes that the repository did not have; older backups do not say
    reuse_refused: str | None = None  # why nothing was reused; None where something was, or nothing could be
    newest: NewestRow | None = None  # of tables whose settings name a time column
    seconds: float

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class LargeObjectsRecord(_Record):
    count: int = 0
    size_bytes: int = 0
    ranges: str | None = (
        None  # member with the fingerprint of each; None where pg_largeobject could not be read
    )
    filenode: int | None = None  # of pg_largeobject
    reused: int = 0  # were not read: their rows are those of the base
    reused_bytes: int = 0
    reuse_refused: str | None = None  # why none was reused; None where some were, or could have been


class GlobalsRecord(_Record):
    """Roles, memberships, settings and tablespaces in globals.sql."""

    is_captured: bool
    has_passwords: bool = False
    roles: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()  # what could not be captured, and why


class SettingRecord(_Record):
    """A setting that is not at PostgreSQL's default. ``value`` None: it is set, and what to was left out as it may be a secret."""

    name: str
    value: str | None
    source: str  # as pg_settings names it


class ConfigurationRecord(_Record):
    """Settings of server and database. What is set for roles stands in globals.sql."""

    is_captured: bool
    is_complete: bool = False  # the role of the backup may see every setting
    settings: tuple[SettingRecord, ...] = ()
    missing: tuple[str, ...] = ()  # what could not be captured, and why


class ExtensionRecord(_Record):
    name: str
    version: str
    schema_: str = Field(alias="schema")

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class Warning_(_Record):  # noqa: N801  Warning is a builtin
    code: str
    message: str


class Totals(_Record):
    tables: int
    rows: int
    size_bytes: int  # bytes of all members
    new_blobs: int
    new_bytes: int  # plain bytes that the repository did not have
    stored_bytes: int  # what those took, compressed and encrypted
    known_bytes: int  # plain bytes that were already there


class ReuseRecord(_Record):
    """What was taken over from an earlier backup, and whether that may serve as a base for the next one."""

    is_base: bool  # the server had made everything durable that this backup saw
    base: str | None = None  # id of the backup whose unchanged page ranges were taken over or compared
    refused: str | None = None  # why no backup could serve as the base
    depth: int = 0  # backups since everything was read
    is_full_read: bool = True
    checked_ranges: int = 0  # read although they could have been reused, and compared
    alarms: tuple[str, ...] = ()  # what differed: the base is not to be trusted
    distrusted: tuple[str, ...] = ()  # ids of backups that are no base any more


class Manifest(_Record):
    format: int = MANIFEST_FORMAT
    backup_id: str  # UUID, equal to the run= tag
    set_id: str | None = None  # shared by the backups of one --all-databases run
    name: str
    kind: str
    label: str | None = None
    is_partial: bool
    selection: Selection = Selection()
    must_contain: tuple[str, ...] = ()  # it was made sure that the rows of these are here
    recorded: tuple[RecordedValue, ...] = ()
    newest_of_partitioned: tuple[NewestOfPartitioned, ...] = ()
    imported: ImportRecord | None = None
    started: datetime
    snapshot_taken: datetime
    finished: datetime
    server: ServerRecord
    tools: dict[str, str]
    settings: dict[str, str]
    tables: tuple[TableRecord, ...]
    large_objects: LargeObjectsRecord = LargeObjectsRecord()
    materialized_views_bytes: int | None = (
        None  # about, with their indexes; older backups and dumps do not say
    )
    globals: GlobalsRecord
    configuration: ConfigurationRecord | None = None  # None in imported and in older backups
    extensions: tuple[ExtensionRecord, ...] = ()
    owners: tuple[str, ...] = ()
    shape: str | None = None
    reuse: ReuseRecord = ReuseRecord(is_base=False)
    attempts: int = 1
    warnings: tuple[Warning_, ...] = ()
    totals: Totals
    timings_s: dict[str, float] = {}

    def newest_rows(self) -> dict[tuple[str, str], NewestRow]:
        """Return what was recorded of newest rows, by schema and name, partitioned tables among them."""
        found = {(one.schema_, one.name): one.newest for one in self.tables if one.newest is not None}
        for one in self.newest_of_partitioned:
            found[one.schema_, one.name] = NewestRow(column=one.column, value=one.value)
        return found

    def to_json(self) -> bytes:
        """Return the bytes of manifest.json."""
        return self.model_dump_json(by_alias=True, indent=1).encode() + b"\n"


def parse_manifest(data: bytes, *, where: str) -> Manifest:
    """Return the manifest in ``data``; RepositoryDamaged, naming ``where``, if it is none of ours."""
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as exc:
        first = exc.errors()[0]
        at = ".".join(str(part) for part in first["loc"])
        raise RepositoryDamaged(f"manifest of {where} is not valid: {at}: {first['msg']}") from exc
    if manifest.format > MANIFEST_FORMAT:
        raise RepositoryDamaged(
            f"manifest of {where} has format {manifest.format}, newer than this program understands",
            hint="upgrade pgstow; the archive itself restores with restic and pg_restore",
        )
    return manifest
