"""Looking ahead: what the archive takes for granted and the target lacks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from pgstow.core.errors import TargetRefused
from pgstow.postgres import target as target_sql
from pgstow.postgres.archive import Section, TocEntry
from pgstow.postgres.extension_packages import packages_of
from pgstow.postgres.raw import RawSession
from pgstow.restore.naming import described, mentioned_roles, text
from pgstow.restore.report import Skipped
from pgstow.restore.request import ArchiveFiles, RestoreOptions
from pgstow.restore.rights import refuse_without_rights
from pgstow.restore.selection import PRIVILEGES, Selection, is_about_database

__all__ = ["Preflight", "look_ahead", "missing_extensions", "needed_roles"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """What is missing but can be done without."""

    missing_roles: tuple[str, ...] = ()
    left_out: frozenset[int] = frozenset()  # dump ids that must not be restored
    kept: frozenset[int] = frozenset()  # dump ids that must not be dropped
    no_tablespaces: bool = False
    skipped: tuple[Skipped, ...] = ()
    warnings: tuple[str, ...] = ()


def look_ahead(
    session: RawSession,
    files: ArchiveFiles,
    selection: Selection,
    facts: target_sql.TargetFacts,
    options: RestoreOptions,
    *,
    beneath: Sequence[TocEntry] = (),
) -> Preflight:
    """Return what the target lacks; TargetRefused when the restore would fail for it. Nothing is touched.

    ``beneath`` are entries of another archive that are restored before.
    """
    wanted = [*selection.entries, *selection.foreign_keys]
    if options.create:
        wanted += [entry for entry in files.toc.entries if is_about_database(entry)]
    encoding = files.toc.encoding
    all_wanted = [*beneath, *wanted, *_unwanted_privileges(files, wanted)]
    missing_roles = _roles(session, all_wanted, facts, options, encoding)
    refuse_without_rights(session, [*beneath, *wanted], facts, options, encoding)
    installed = {} if options.create else target_sql.installed_extensions(session)
    warnings = _extensions(session, files, [*beneath, *wanted], installed, encoding)
    untouchable = _untouchable_extensions(wanted, installed)
    remarks = _remarks(wanted, untouchable)
    lost_tablespaces = _tablespaces(session, wanted, encoding)
    return Preflight(
        missing_roles=missing_roles,
        left_out=frozenset(entry.dump_id for entry in remarks),
        kept=frozenset(untouchable),
        no_tablespaces=bool(lost_tablespaces),
        skipped=tuple(
            Skipped(what=described(entry, encoding), why="only the extension's owner may change it")
            for entry in remarks
        ),
        warnings=(*warnings, *lost_tablespaces),
    )


def _roles(
    session: RawSession,
    wanted: Iterable[TocEntry],
    facts: target_sql.TargetFacts,
    options: RestoreOptions,
    encoding: str,
) -> tuple[str, ...]:
    """Return the missing roles that do not matter as no owners or privileges are restored."""
    roles = needed_roles(wanted)
    owners, others, privileges = roles.owners, roles.others, roles.privileges
    present = target_sql.roles(session)
    needed = {
        **others,
        **({} if options.no_privileges else privileges),
        **({} if options.no_owner else owners),
    }
    missing = sorted(set(needed) - present.keys())
    if missing:
        named = ", ".join(
            f"{text(role, encoding)} (for {described(needed[role], encoding)})" for role in missing
        )
        raise TargetRefused(
            f"the target lacks {'roles' if len(missing) > 1 else 'the role'} {named}",
            hint="create them first (the backup's globals.sql has them), or leave owners and privileges out with"
            " --no-owner and --no-privileges",
            missing_roles=[text(role, encoding) for role in missing],
        )
    if not options.no_owner and not facts.is_superuser:
        _check_ownership(owners, present, facts, encoding)
    return tuple(text(role, encoding) for role in sorted({*owners, *others, *privileges} - present.keys()))


@dataclass(frozen=True, slots=True, kw_only=True)
class NeededRoles:
    """The roles that entries need, each with the first entry that does.

    ``owners`` can be done without where nothing gets its owner, ``privileges`` without those, ``others`` never.
    """

    owners: dict[bytes, TocEntry]
    privileges: dict[bytes, TocEntry]
    others: dict[bytes, TocEntry]


def needed_roles(entries: Iterable[TocEntry]) -> NeededRoles:
    """Return the roles that restoring these entries takes for granted."""
    owners: dict[bytes, TocEntry] = {}
    others: dict[bytes, TocEntry] = {}
    privileges: dict[bytes, TocEntry] = {}
    for entry in entries:
        if entry.owner and _gets_owner(entry):
            owners.setdefault(entry.owner, entry)
        for role in mentioned_roles(entry):
            (privileges if entry.desc in PRIVILEGES else others).setdefault(role, entry)
    return NeededRoles(owners=owners, privileges=privileges, others=others)


def _gets_owner(entry: TocEntry) -> bool:
    """Whether restoring the entry hands something to its owner: rows and values stay with who has the table."""
    return entry.section is not Section.DATA or entry.desc == b"BLOB METADATA"


def _unwanted_privileges(files: ArchiveFiles, wanted: Iterable[TocEntry]) -> list[TocEntry]:
    """Return what --no-privileges leaves out about wanted objects: its roles are worth a mention."""
    ids = {entry.dump_id for entry in wanted}
    return [
        entry
        for entry in files.toc.entries
        if entry.desc in PRIVILEGES
        and entry.dump_id not in ids
        and any(one in ids for one in entry.dependencies)
    ]


def _check_ownership(
    owners: dict[bytes, TocEntry],
    present: dict[bytes, target_sql.RoleFacts],
    facts: target_sql.TargetFacts,
    encoding: str,
) -> None:
    foreign = sorted(role for role in owners if not present[role].may_own)
    if foreign:
        user = text(facts.user, encoding)
        named = ", ".join(
            f"{text(role, encoding)} (owner of {described(owners[role], encoding)})" for role in foreign
        )
        raise TargetRefused(
            f"{user} may not make objects belong to {named}",
            hint=f"grant those roles to {user}, connect as a superuser, or restore with --no-owner",
        )


def _extensions(
    session: RawSession,
    files: ArchiveFiles,
    wanted: Iterable[TocEntry],
    installed: dict[bytes, target_sql.ExtensionFacts],
    encoding: str,
) -> list[str]:
    """Return remarks on versions; TargetRefused when the server does not have an extension at all."""
    needed = [entry.tag for entry in wanted if entry.desc == b"EXTENSION"]
    available = target_sql.available_extensions(session)
    missing = _absent(needed, available, installed, encoding)
    if missing:
        packages = packages_of(missing, session.connection.info.server_version // 10000)
        named = f" ({', '.join(packages)} on Debian)" if packages else ""
        raise TargetRefused(
            f"the target's server does not have the extension{'s' if len(missing) > 1 else ''} {', '.join(missing)}",
            hint=f"install the packages on the server{named}, or choose tables that do not need them with --table",
            missing_extensions=missing,
            packages=list(packages),
        )
    saved = {extension.name: extension.version for extension in files.manifest.extensions}
    remarks = []
    for name in needed:
        there = installed[name].version if name in installed else available[name]
        before = saved.get(text(name, encoding))
        if before is not None and before != there:
            remarks.append(
                f"extension {text(name, encoding)} is version {there} here and was {before} in the source"
            )
    return remarks


def missing_extensions(session: RawSession, wanted: Iterable[TocEntry], *, encoding: str) -> list[str]:
    """Return the extensions among the entries that the database neither has nor could get."""
    return _absent(
        [entry.tag for entry in wanted if entry.desc == b"EXTENSION"],
        target_sql.available_extensions(session),
        target_sql.installed_extensions(session),
        encoding,
    )


def _absent(
    needed: Iterable[bytes],
    available: Collection[bytes],
    installed: Collection[bytes],
    encoding: str,
) -> list[str]:
    return [text(name, encoding) for name in needed if name not in available and name not in installed]


def _untouchable_extensions(
    wanted: Iterable[TocEntry], installed: dict[bytes, target_sql.ExtensionFacts]
) -> dict[int, TocEntry]:
    """Return the entries of extensions that are there and belong to somebody else."""
    return {
        entry.dump_id: entry
        for entry in wanted
        if entry.desc == b"EXTENSION" and entry.tag in installed and not installed[entry.tag].may_comment
    }


def _remarks(wanted: Iterable[TocEntry], untouchable: dict[int, TocEntry]) -> list[TocEntry]:
    return [
        entry
        for entry in wanted
        if entry.desc == b"COMMENT" and any(one in untouchable for one in entry.dependencies)
    ]


def _tablespaces(session: RawSession, wanted: Iterable[TocEntry], encoding: str) -> list[str]:
    needed = {entry.tablespace for entry in wanted if entry.tablespace}
    missing = needed - target_sql.tablespaces(session) if needed else set()
    return [
        f"the target lacks the tablespace {text(name, encoding)}: everything is put into the database's default tablespace"
        for name in sorted(missing)
    ]
