"""What is around the objects: extensions, roles, and how the database was made and set."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pgstow.assurance.drill.checks.records import counted, failed, listed, passed, skipped, summed_up, unknown
from pgstow.assurance.drill.checks.restored import Restored
from pgstow.catalog.drills import CheckRecord
from pgstow.postgres.archive.entries import NAME, unquote
from pgstow.postgres.encodings import decoded
from pgstow.postgres.inventory import database_facts, memberships
from pgstow.postgres.raw import RawSession
from pgstow.postgres.target import roles

__all__ = ["check_extensions", "check_locale", "check_roles"]

_ENCODING = re.compile(rb"^SET client_encoding = '(\w+)';$", re.MULTILINE)
_ROLE = re.compile(rb"^CREATE ROLE (%b);$" % NAME, re.MULTILINE)
_MEMBERSHIP = re.compile(
    rb"^GRANT (%b) TO (%b)(?: WITH [^;\n]*)?(?: GRANTED BY [^\n]*)?;$" % (NAME, NAME), re.MULTILINE
)


def check_extensions(restored: Restored, session: RawSession) -> Iterator[CheckRecord]:  # noqa: ARG001  as every check
    """Yield whether each extension is there, in the version of the source."""
    versions = {one.name: one.version for one in restored.manifest.extensions}
    names = sorted(
        {*versions, *(restored.text(one.tag) for one in restored.toc.entries if one.desc == b"EXTENSION")}
    )
    if (
        restored.manifest.is_partial
    ):  # the manifest names those of the database, the archive those of the choice
        names = sorted(restored.text(one.tag) for one in restored.toc.entries if one.desc == b"EXTENSION")
    if not names:
        yield skipped("extensions", "the backup holds no extensions")
        return
    problems = []
    for name in names:
        there, before = restored.installed.get(name), versions.get(name)
        if there is None and name in restored.context.optional_extensions:
            problems.append(
                skipped("extensions", "it may be missing, and is; what needs it was left out", subject=name)
            )
        elif there is None:
            problems.append(failed("extensions", "the extension is missing", subject=name))
        elif before is not None and there != before:
            problems.append(
                failed(
                    "extensions",
                    "the extension has another version here",
                    subject=name,
                    severity="warning",
                    expected=before,
                    found=there,
                )
            )
    good = passed("extensions", f"extensions are those of the source: {listed(names)}")
    yield from summed_up(good, problems)


def check_roles(restored: Restored, session: RawSession) -> Iterator[CheckRecord]:
    """Yield whether the roles of the source, and their memberships, could be made from what the backup holds."""
    if not restored.context.is_throwaway:
        yield skipped("roles", "the drill changes no roles of a server that is not its own")
        return
    if restored.manifest.imported is not None:
        yield skipped("roles", "a dump of one database holds no roles")
        return
    if not restored.manifest.globals.is_captured or restored.files.member("globals.sql") is None:
        why = listed(restored.manifest.globals.missing) or "they were not captured"
        yield unknown("roles", f"the backup holds no roles: {why}", severity="warning")
        return
    sql = restored.files.read("globals.sql")
    named = _ENCODING.search(sql)
    encoding = named[1].decode() if named else "UTF8"
    wanted = {decoded(unquote(match[1]), encoding) for match in _ROLE.finditer(sql)}
    pairs = {
        (decoded(unquote(match[1]), encoding), decoded(unquote(match[2]), encoding))
        for match in _MEMBERSHIP.finditer(sql)
    }
    there = {session.decode(name) for name in roles(session)}
    joined = {(session.decode(role), session.decode(member)) for role, member in memberships(session)}
    problems = [failed("roles", "the role is missing", subject=name) for name in sorted(wanted - there)]
    problems += [
        failed("roles", f"{member} is not a member of {role}", subject=member)
        for role, member in sorted(pairs - joined)
        if role in there and member in there
    ]
    good = passed(
        "roles",
        f"{counted(len(wanted), 'role')} with {counted(len(pairs), 'membership')} could be made from the backup",
    )
    yield from summed_up(good, problems)


def check_locale(restored: Restored, session: RawSession) -> Iterator[CheckRecord]:
    """Yield whether the database has the encoding and the locale of the source."""
    source, there = restored.manifest.server, database_facts(session)
    wanted = f"{source.encoding}, {source.collate}, {source.ctype}"
    found = f"{there.encoding}, {there.collate}, {there.ctype}"
    if wanted == found:
        yield passed("settings", f"encoding and locale are those of the source: {found}")
        return
    yield failed(
        "settings",
        "the database has another encoding or locale here: text may sort differently",
        severity="warning",
        expected=wanted,
        found=found,
    )
