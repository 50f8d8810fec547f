"""From saved blobs to a published backup.

The order is what makes a backup never lie: packs, then the index, then (lock and lease still ours, every blob still
indexed, the run claimed) the snapshot. Dying before the last step leaves garbage that the next run finds again, never
half a backup. A process that was stopped meanwhile, for longer than others wait for it, publishes nothing.

With several destinations each goes through all of that by itself, one after the other. Trees and manifest are the same
bytes everywhere; what the manifest says was new, was new to the first destination.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import pgstow
from pgstow.capture.destinations import Destinations, FanOutWriter, OpenDestination
from pgstow.capture.large_objects import INDEX_NAME
from pgstow.capture.logical import Capture, SavedContents
from pgstow.capture.members import save_file
from pgstow.capture.options import CapturedBackup, DestinationResult
from pgstow.capture.questions import newest_by_table, newest_of_partitioned, recorded_values, warnings_of
from pgstow.capture.required import empty_warnings
from pgstow.capture.tables import CapturedTable
from pgstow.catalog.backups import snapshot_path
from pgstow.catalog.manifest import (
    ExtensionRecord,
    LargeObjectsRecord,
    Manifest,
    NewestRow,
    RootName,
    ServerRecord,
    TableRecord,
    Totals,
    Warning_,
)
from pgstow.core.errors import CaptureError, Interrupted, RepositoryDamaged, RepositoryLocked, StoreError
from pgstow.postgres.archive import is_load_via_root, large_object_ids, write_directory_toc
from pgstow.postgres.catalogs import text
from pgstow.postgres.encodings import decoded
from pgstow.postgres.session import CAPTURE_SETTINGS
from pgstow.repository import (
    BlobKind,
    DirNode,
    FileNode,
    Lease,
    Repository,
    RepositoryLock,
    Snapshot,
    SnapshotSummary,
    WriterStats,
)

__all__ = ["Content", "Held", "Identity", "publish", "publish_content", "save_content"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who made the backup and how it is called."""

    backup_id: str
    started: datetime
    username: str


class Held(Protocol):
    """What a run holds of a destination, and must still hold when the backup appears there."""

    @property
    def lock(self) -> RepositoryLock: ...

    @property
    def lease(self) -> Lease: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A backup whose blobs have all been given to the writer; ``files`` are all but its folders."""

    manifest: Manifest
    path: str
    root: bytes
    files: Sequence[FileNode]


def publish(
    job: Capture, saved: SavedContents, identity: Identity, writer: FanOutWriter, held: Mapping[str, Held]
) -> CapturedBackup:
    """Write trees and manifest, make everything durable, and let the backup appear in every destination that is left.

    ``held`` is by the destination's name. Raises when it appeared nowhere.
    """
    with job.phase("publishing"):
        return publish_content(_save_capture(job, saved, identity, writer), identity, writer, held)


def publish_content(
    content: Content, identity: Identity, writer: FanOutWriter, held: Mapping[str, Held]
) -> CapturedBackup:
    """Make everything durable, and let the backup appear in every destination that is left; see ``publish()``."""
    appeared: dict[str, str] = {}
    interrupted: Interrupted | None = None

    def appear(one: OpenDestination) -> None:
        appeared[one.name] = _publish_in(one, content, identity, writer, held[one.name])

    try:
        writer.destinations.each(appear)
    except Interrupted as exc:
        if not appeared:
            raise
        interrupted = exc
        for one in writer.destinations.alive:
            if one.name not in appeared:
                writer.destinations.drop(one.name, exc)
    results = tuple(_results(writer, appeared))
    first = next(result.snapshot_id for result in results if result.snapshot_id is not None)
    return CapturedBackup(
        manifest=content.manifest, snapshot_id=first, destinations=results, interrupted=interrupted
    )


def _results(writer: FanOutWriter, appeared: Mapping[str, str]) -> Iterable[DestinationResult]:
    destinations: Destinations = writer.destinations
    for name in destinations.names:
        yield DestinationResult(
            name=name,
            location=destinations.location_of(name),
            snapshot_id=appeared.get(name),
            stats=writer.stats_of(name),
            error=destinations.error_of(name),
        )


def _save_capture(job: Capture, saved: SavedContents, identity: Identity, writer: FanOutWriter) -> Content:
    members = _archive_members(saved, writer)
    size_bytes = sum(node.size_bytes for node in members)
    manifest = job.relabel(_manifest(job, saved, identity, writer.stats, size_bytes))
    indexes = _range_indexes(saved, writer)
    return save_content(manifest, members, writer, globals_sql=saved.globals.sql, indexes=indexes)


def save_content(
    manifest: Manifest,
    members: Sequence[FileNode],
    writer: FanOutWriter,
    *,
    globals_sql: bytes | None = None,
    indexes: Sequence[FileNode] = (),
) -> Content:
    """Save what is neither rows nor archive: the manifest, globals, and the trees."""
    modified = manifest.snapshot_taken
    files = [save_file(writer, "manifest.json", manifest.to_json(), modified)]
    if globals_sql is not None:
        files.append(save_file(writer, "globals.sql", globals_sql, modified))
    folders = [DirNode(name="archive", subtree=writer.save_tree(members), modified=modified)]
    if indexes:
        folders.append(DirNode(name="ranges", subtree=writer.save_tree(indexes), modified=modified))
    path = snapshot_path(manifest.name, manifest.kind, is_partial=manifest.is_partial)
    backup = DirNode(name=path, subtree=writer.save_tree([*files, *folders]), modified=modified)
    root = writer.save_tree([backup])
    return Content(manifest=manifest, path=path, root=root, files=[*members, *files, *indexes])


def _publish_in(
    one: OpenDestination, content: Content, identity: Identity, writer: FanOutWriter, held: Held
) -> str:
    """Let the backup appear in one destination and return its snapshot's id there."""
    writer.flush(one.name)
    held.lock.confirm()
    one.repository.load_index(damaged=[])  # what cannot be read was unknown from the beginning
    _refuse_lost_blobs(one.repository, content.files)
    held.lease.claim()  # if ours is still the highest
    summary = _summary(identity, writer.stats_of(one.name), content.files)
    return _appear(one.repository, _snapshot(content.manifest, identity, content.path, content.root, summary))


def _range_indexes(saved: SavedContents, writer: FanOutWriter) -> list[FileNode]:
    """Return what the next backup compares with: the files of the ranges folder."""
    nodes = [table.ranges_node for table in saved.tables if table.ranges_node is not None]
    known = saved.known_objects
    if known is not None and known.index is not None:
        nodes.append(save_file(writer, INDEX_NAME, known.index.encode(), saved.leader.taken))
    return nodes


def _refuse_lost_blobs(repository: Repository, files: Iterable[FileNode]) -> None:
    """Raise RepositoryDamaged if something the backup refers to is in no index file.

    Much of it was in the repository before and was not stored again. If our lock was removed by force, and a
    prune ran, it is gone.
    """
    for node in files:
        for blob in node.content:
            if repository.blob_size(BlobKind.DATA, blob) is None:
                raise RepositoryDamaged(
                    f"a blob of {node.name} is no longer in the repository",
                    hint="run the backup again; was the repository unlocked by force while this one ran?",
                    blob=blob.hex(),
                )


def _appear(repository: Repository, snapshot: Snapshot) -> str:
    """Write the snapshot and return its id. An interruption counts only if the backup did not appear."""
    try:
        snapshot_id = repository.save_snapshot(snapshot)
    except Interrupted:
        # The tags hold the run.
        known = repository.snapshots(damaged=[])
        present = [each.id for each in known if each.id and each.tags == snapshot.tags]
        if not present:
            raise
        snapshot_id = present[0]
    _withdraw_if_late(repository, snapshot_id)
    return snapshot_id


def _withdraw_if_late(repository: Repository, snapshot_id: str) -> None:
    """Take the snapshot back, and raise, if the process was stopped while it was written and is taken for dead now."""
    try:
        repository.check_locks()
    except RepositoryLocked as late:
        try:
            repository.remove_snapshot(snapshot_id)
        except StoreError as exc:
            raise RepositoryLocked(
                f"{late.message}; the snapshot {snapshot_id} had been written and could not be removed: {exc.message}",
                hint="pgstow verify tells whether that backup is whole",
                snapshot=snapshot_id,
            ) from late
        raise


def _archive_members(saved: SavedContents, writer: FanOutWriter) -> list[FileNode]:
    """Save toc.dat and the lists of large objects; return the files of the archive folder."""
    modified = saved.leader.taken
    toc = saved.contents.toc
    nodes = [table.node for table in saved.tables]
    nodes.append(save_file(writer, "toc.dat", write_directory_toc(toc), modified))
    for entry in toc.large_object_data():
        oids = large_object_ids(toc, entry)
        listing = b"".join(b"%d blob_%d.dat\n" % (oid, oid) for oid in oids)
        nodes.append(save_file(writer, text(entry.file_name or b""), listing, modified))
        nodes += [_large_object(saved, oid) for oid in oids]
    return nodes


def _large_object(saved: SavedContents, oid: int) -> FileNode:
    captured = saved.large_objects.get(oid)
    if captured is None:
        raise CaptureError(f"large object {oid} is in the archive's table of contents but was not read")
    return FileNode(
        name=f"blob_{oid}.dat",
        size_bytes=captured.size_bytes,
        content=captured.content,
        modified=saved.leader.taken,
    )


def _summary(identity: Identity, stats: WriterStats, files: Sequence[FileNode]) -> SnapshotSummary:
    """Return what restic lists beside the snapshot; files and bytes must be exact, or its rewrite corrects them."""
    return SnapshotSummary(
        backup_start=identity.started,
        backup_end=datetime.now(UTC),
        files_new=len(files),
        data_blobs=stats.new_blobs,
        data_added=stats.new_bytes,
        data_added_packed=stats.stored_bytes,
        total_files_processed=len(files),
        total_bytes_processed=sum(node.size_bytes for node in files),
    )


def _snapshot(
    manifest: Manifest, identity: Identity, path: str, root: bytes, summary: SnapshotSummary
) -> Snapshot:
    tags = ["pgstow", f"db={manifest.name}", f"kind={manifest.kind}", f"run={manifest.backup_id}"]
    if manifest.label:
        tags.append(f"label={manifest.label}")
    if manifest.is_partial:
        tags.append("partial")
    if manifest.set_id:
        tags.append(f"set={manifest.set_id}")
    if manifest.server.system_identifier:
        tags.append(f"system={manifest.server.system_identifier}")
    return Snapshot(
        time=manifest.snapshot_taken,
        tree=root,
        paths=(f"/{path}",),
        hostname=manifest.name,
        username=identity.username,
        tags=tuple(tags),
        program_version=f"pgstow {pgstow.__version__}",
        summary=summary,
    )


def _manifest(
    job: Capture, saved: SavedContents, identity: Identity, stats: WriterStats, size_bytes: int
) -> Manifest:
    options = job.options
    newest = newest_by_table(saved.answers)
    return Manifest(
        backup_id=identity.backup_id,
        set_id=options.set_id,
        name=options.name,
        kind=options.kind,
        label=options.label,
        is_partial=options.selection.is_partial,
        selection=options.selection,
        must_contain=options.must_contain,
        recorded=recorded_values(saved.answers, options.assertions),
        newest_of_partitioned=newest_of_partitioned(saved.answers),
        started=identity.started,
        snapshot_taken=saved.leader.taken,
        finished=datetime.now(UTC),
        server=_server(job, saved),
        tools={"pgstow": pgstow.__version__, "pg_dump": job.tools.text},
        settings=dict(CAPTURE_SETTINGS),
        tables=tuple(_table(saved, table, newest.get(table.task.facts.oid)) for table in saved.tables),
        large_objects=_large_objects(saved),
        materialized_views_bytes=saved.materialized_views_bytes,
        globals=saved.globals.record,
        configuration=saved.configuration,
        extensions=tuple(ExtensionRecord(name=n, version=v, schema_=s) for n, v, s in saved.extensions),
        owners=tuple(
            sorted(
                {decoded(e.owner, saved.leader.facts.encoding) for e in saved.contents.toc.entries if e.owner}
            )
        ),
        reuse=saved.reuse,
        attempts=saved.attempts,
        warnings=(*job.warnings, *_warnings(saved)),
        totals=Totals(
            tables=len(saved.tables),
            rows=sum(table.rows for table in saved.tables),
            size_bytes=size_bytes,
            new_blobs=stats.new_blobs,
            new_bytes=stats.new_bytes,
            stored_bytes=stats.stored_bytes,
            known_bytes=stats.known_bytes,
        ),
        timings_s=dict(job.timings_s),
    )


def _large_objects(saved: SavedContents) -> LargeObjectsRecord:
    objects, known = saved.large_objects.values(), saved.known_objects
    has_index = known is not None and known.index is not None
    return LargeObjectsRecord(
        count=len(objects),
        size_bytes=sum(one.size_bytes for one in objects),
        ranges=f"ranges/{INDEX_NAME}" if has_index else None,
        filenode=known.filenode if known else None,
        reused=sum(one.is_reused for one in objects),
        reused_bytes=sum(one.size_bytes for one in objects if one.is_reused),
        reuse_refused=known.refused if known else None,
    )


def _warnings(saved: SavedContents) -> tuple[Warning_, ...]:
    warnings = [Warning_(code="pg_dump", message=line) for line in saved.contents.warnings]
    warnings += [Warning_(code="globals", message=f"not captured: {what}") for what in saved.globals.refused]
    warnings += empty_warnings(saved.required, saved.tables)
    warnings += [*saved.unasked, *warnings_of(saved.answers)]
    warnings += [
        Warning_(code="configuration", message=f"settings of the server were not captured: {why}")
        for why in saved.configuration.missing
        if not saved.configuration.is_captured
    ]
    if saved.leader.lsn is None:
        warnings.append(Warning_(code="lsn", message="this role may not see the write-ahead log position"))
    return tuple(warnings)


def _server(job: Capture, saved: SavedContents) -> ServerRecord:
    facts = saved.leader.facts
    return ServerRecord(
        system_identifier=saved.system_identifier,
        version_num=facts.version_num,
        version=facts.version,
        database=text(facts.database),
        database_oid=facts.database_oid,
        encoding=facts.encoding,
        collate=text(facts.collate),
        ctype=text(facts.ctype),
        locale_provider=facts.locale_provider,
        icu_locale=text(facts.icu_locale) if facts.icu_locale is not None else None,
        timeline=facts.timeline,
        lsn=str(saved.leader.lsn) if saved.leader.lsn is not None else None,
        is_standby=facts.is_standby,
        oldest_xid=saved.leader.horizon.oldest,
        next_xid=saved.leader.horizon.next,
        postmaster_start=facts.postmaster_start,
        tls=facts.tls,
        via=facts.via,
        host=str(job.source),
    )


def _table(saved: SavedContents, table: CapturedTable, newest: NewestRow | None) -> TableRecord:
    task, facts, encoding = table.task, table.task.facts, saved.leader.facts.encoding
    root = facts.root if is_load_via_root(task.entry) else None
    return TableRecord(
        dump_id=task.entry.dump_id,
        member=f"archive/{table.node.name}",
        oid=facts.oid,
        schema_=decoded(facts.schema, encoding),
        name=decoded(facts.name, encoding),
        rows=table.rows,
        size_bytes=table.node.size_bytes,
        heap_bytes=facts.heap_bytes,
        toast_bytes=facts.toast_bytes,
        index_bytes=facts.index_bytes,
        pages=task.pages,
        pages_per_range=task.pages_per_range if task.has_ranges else 0,
        ranges=f"ranges/{table.ranges_node.name}" if table.ranges_node else None,
        load_via_root=RootName(schema_=decoded(root[0], encoding), name=decoded(root[1], encoding))
        if root
        else None,
        condition=decoded(facts.condition, encoding) if facts.condition is not None else None,
        extension_owned=facts.extension_owned,
        read_by=table.read_by,
        filenode=facts.filenode,
        reused_rows=table.reused.rows,
        reused_bytes=table.reused.size_bytes,
        reused_ranges=table.reused.ranges,
        reuse_refused=table.reuse_refused,
        new_bytes=table.new_bytes,
        shape=saved.leader.shapes.by_table.get(facts.oid),
        newest=newest,
        seconds=round(table.seconds, 3),
    )
