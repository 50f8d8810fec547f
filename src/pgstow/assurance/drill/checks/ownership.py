"""Who owns what is there, who may do what with it, and what is set for the database.

Expected and found are held side by side as statements of pg_dump, which writes one line for each privilege and setting.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet

from pgstow.assurance.drill.checks.dumped import Key, Side, incomparable, key_text
from pgstow.assurance.drill.checks.records import counted, failed, passed, skipped, summed_up
from pgstow.assurance.drill.checks.restored import Restored
from pgstow.catalog.drills import CheckRecord
from pgstow.postgres.archive import Section, Toc, TocEntry
from pgstow.postgres.archive.entries import metadata_oids
from pgstow.restore.naming import described, rename_database, text
from pgstow.restore.selection import PRIVILEGES, is_about_database

__all__ = ["Pairs", "check_database_settings", "check_owners", "check_privileges"]

_OUR_SCHEMA = "pgstow_amcheck_"  # as install_amcheck() names it
_PROPERTIES = {b"DATABASE PROPERTIES"}

Pairs = Sequence[tuple[Key, list[TocEntry], list[TocEntry]]]  # what is in the archive, and what is there


def check_owners(restored: Restored, pairs: Pairs, present: Toc) -> Iterator[CheckRecord]:
    """Yield whether what is there belongs to whom it belonged to."""
    encoding, there = restored.toc.encoding, present.encoding
    why = _without_roles(restored)
    if why is not None:
        yield skipped("owners", f"owners are not compared: {why}")
        return
    problems, count = [], 0
    for key, before, after in pairs:
        if before[0].section is Section.NONE:
            continue
        count += 1
        old = sorted(text(one.owner, encoding) for one in before)
        new = sorted(text(one.owner, there) for one in after)
        if old != new:
            problems.append(
                failed(
                    "owners",
                    f"{described(before[0], encoding)} belongs to somebody else",
                    subject=key_text(key),
                    expected=", ".join(old),
                    found=", ".join(new),
                )
            )
    here, objects = _owners_of_large_objects(present), _owners_of_large_objects(restored.toc)
    problems += [
        failed(
            "owners",
            "the large object belongs to somebody else",
            subject=f"large object {oid}",
            expected=owner,
            found=here[oid],
        )
        for oid, owner in objects.items()
        if oid in here and here[oid] != owner  # missing ones are told by a check of their own
    ]
    yield from summed_up(
        passed("owners", f"{counted(count + len(objects), 'object')} with the owner of the source"), problems
    )


def _owners_of_large_objects(toc: Toc) -> dict[int, str]:
    owners: dict[int, str] = {}
    for entry in toc.entries:
        if entry.desc == b"BLOB":
            owners[entry.oid] = text(entry.owner, toc.encoding)
        elif entry.desc == b"BLOB METADATA":
            owners |= dict.fromkeys(metadata_oids(entry), text(entry.owner, toc.encoding))
    return owners


def _without_roles(restored: Restored) -> str | None:
    """Return why owners and privileges cannot be those of the source; None if they can."""
    if not restored.context.is_throwaway:
        return "the roles of a given server are its own"
    missing = restored.context.restored.missing_roles
    return f"the backup does not hold all roles ({', '.join(missing[:5])})" if missing else None


def check_privileges(restored: Restored, present: Toc) -> Iterator[CheckRecord]:
    """Yield whether GRANT and REVOKE came back, and nothing besides."""
    why = _without_roles(restored) or incomparable(restored)
    if why is not None:
        yield skipped("privileges", f"privileges are not compared: {why}")
        return

    def is_privilege(entry: TocEntry) -> bool:
        return entry.desc in PRIVILEGES and not is_about_database(entry)

    wanted = Side.of(restored.toc, lambda one: is_privilege(one) and one.dump_id not in restored.left_out)
    there = Side.of(present, is_privilege)
    of_database = restored.context.restored.created_database
    before, after = (
        _of_database(toc, PRIVILEGES) if of_database else Counter() for toc in (restored.toc, present)
    )
    if not wanted.entries and not there.entries and not before and not after:
        yield skipped("privileges", "the backup holds no privileges other than those of owners")
        return
    problems = []
    if before != after:
        problems.append(_other_privileges("the database itself", before, after))
    for key, entries in wanted.entries.items():
        old = _lines(entries, wanted.encoding)
        new = _lines(there.entries.get(key, []), there.encoding)
        if old != new:
            problems.append(_other_privileges(key_text(key), old, new))
    problems += [
        failed(
            "privileges",
            "there are privileges that nobody had in the source",
            subject=key_text(key),
            severity="warning",
            found="\n".join(sorted(_lines(entries, there.encoding))),
        )
        for key, entries in there.entries.items()
        if key not in wanted.entries and _OUR_SCHEMA not in key_text(key)
    ]
    yield from summed_up(
        passed("privileges", f"privileges on {counted(len(wanted.entries), 'object')} as in the source"),
        problems,
    )


def _other_privileges(subject: str, old: Counter[str], new: Counter[str]) -> CheckRecord:
    return failed(
        "privileges",
        "privileges are others than in the source",
        subject=subject,
        expected="\n".join(sorted((old - new).elements())) or None,
        found="\n".join(sorted((new - old).elements())) or None,
    )


def _lines(entries: Iterable[TocEntry], encoding: str) -> Counter[str]:
    return Counter(line for one in entries for line in text(one.defn, encoding).splitlines() if line.strip())


def check_database_settings(restored: Restored, present: Toc) -> Iterator[CheckRecord]:
    """Yield whether ALTER DATABASE ... SET and ALTER ROLE ... IN DATABASE ... SET came back."""
    old, new = (
        Counter({line: count for line, count in _of_database(toc, _PROPERTIES).items() if " SET " in line})
        for toc in (restored.toc, present)
    )
    if not old:
        return
    if not restored.context.restored.created_database:
        yield skipped(
            "settings", "settings of the database itself come back only where the restore makes the database"
        )
        return
    if _without_roles(restored) is not None:
        old = Counter({line: count for line, count in old.items() if line.startswith("ALTER DATABASE ")})
    lost = old - new
    problems = [  # without the value, which may be a secret
        failed("settings", "a setting of the database did not come back", expected=line.partition(" TO ")[0])
        for line in lost
    ]
    yield from summed_up(
        passed("settings", f"{counted(old.total(), 'setting')} of the database came back"), problems
    )


def _of_database(toc: Toc, kinds: AbstractSet[bytes]) -> Counter[str]:
    """Return the statements about the database itself, as if all were of one name."""
    entries = [entry for entry in toc.entries if entry.desc in kinds and is_about_database(entry)]
    return Counter(
        line
        for entry in entries
        for line in text(rename_database(entry.defn or b"", b"the_database"), toc.encoding).splitlines()
        if line.strip()
    )
