"""Roles: those of the source, their attributes and memberships, could be made from what the backup holds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from pgstow.assurance.drill.checks.records import counted, failed, listed, passed, skipped, summed_up, unknown
from pgstow.assurance.drill.checks.restored import Restored
from pgstow.assurance.drill.globals import statements_of
from pgstow.catalog.drills import CheckRecord
from pgstow.postgres.archive.entries import NAME, unquote
from pgstow.postgres.encodings import decoded
from pgstow.postgres.inventory import Membership, RoleState, memberships, role_states
from pgstow.postgres.raw import RawSession

__all__ = ["check_roles"]

_ENCODING = re.compile(rb"^SET client_encoding = '(\w+)';$", re.MULTILINE)
_ROLE = re.compile(rb"CREATE ROLE (%b)" % NAME)
_WITH = re.compile(rb"ALTER ROLE (%b) WITH (.*)" % NAME, re.DOTALL)
_SET = re.compile(rb"ALTER ROLE (%b) SET (%b(?:\.%b)*+) TO " % (NAME, NAME, NAME))
_MEMBERSHIP = re.compile(rb"GRANT (%b) TO (%b)(?: WITH (.*?))?(?: GRANTED BY %b)?" % (NAME, NAME, NAME))
_WORDS = ("SUPERUSER", "INHERIT", "CREATEROLE", "CREATEDB", "REPLICATION", "BYPASSRLS")
_LIMIT = re.compile(rb" CONNECTION LIMIT (-?[0-9]+)")
_UNTIL = re.compile(rb" VALID UNTIL '([^']*)'")
_PASSWORD = re.compile(rb" PASSWORD (?:NULL|'(?:[^']|'')*+')")

_Pair = tuple[str, str]  # role, member


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a globals.sql says, names as text."""

    roles: set[str] = field(default_factory=set)
    attributes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    settings: dict[str, set[str]] = field(default_factory=dict)
    memberships: dict[_Pair, set[str]] = field(default_factory=dict)


def check_roles(restored: Restored, session: RawSession) -> Iterator[CheckRecord]:
    """Yield whether roles, their attributes, settings and memberships are those of globals.sql.

    LOGIN and passwords are not compared: in the throwaway server of a drill nobody can log in as one of them, on purpose.
    """
    why = _not_looked_at(restored)
    if why is not None:
        yield why
        return
    wanted = _read(restored.files.read("globals.sql"))
    there = {session.decode(one.name): one for one in role_states(session)}
    me = session.decode(session.value(b"SELECT current_user", doing="asking who we are"))
    problems = [
        failed("roles", "the role is missing", subject=name) for name in sorted(wanted.roles - there.keys())
    ]
    problems += _attributes(wanted, there, me)
    problems += _settings(wanted, there, me, session.decode)
    problems += _memberships(wanted, there, memberships(session), session.decode)
    good = passed(
        "roles",
        f"{counted(len(wanted.roles), 'role')} with {counted(len(wanted.memberships), 'membership')}"
        " could be made from the backup",
    )
    yield from summed_up(good, problems)


def _not_looked_at(restored: Restored) -> CheckRecord | None:
    """Return why roles are not compared; None if they are."""
    recorded = restored.manifest.globals
    if not restored.context.is_throwaway:
        return skipped("roles", "the drill changes no roles of a server that is not its own")
    if restored.manifest.imported is not None:
        return skipped("roles", "a dump of one database holds no roles")
    if not recorded.is_captured or restored.files.member("globals.sql") is None:
        why = listed(recorded.missing) or "they were not captured"
        return unknown("roles", f"the backup holds no roles: {why}", severity="warning")
    return None


def _read(sql: bytes) -> _Wanted:
    named = _ENCODING.search(sql)
    encoding = named[1].decode() if named else "UTF8"

    def text(name: bytes) -> str:
        return decoded(unquote(name), encoding)

    wanted = _Wanted()
    for statement in statements_of(sql):
        if found := _ROLE.fullmatch(statement):
            wanted.roles.add(text(found[1]))
        elif found := _WITH.fullmatch(statement):
            wanted.attributes[text(found[1])] = _stated(found[2])
        elif found := _SET.match(statement):
            name = decoded(found[2], encoding).replace('"', "").lower()
            wanted.settings.setdefault(text(found[1]), set()).add(name)
        elif found := _MEMBERSHIP.fullmatch(statement):
            options = wanted.memberships.setdefault((text(found[1]), text(found[2])), set())
            options |= _options(found[3] or b"")
    return wanted


def _stated(options: bytes) -> tuple[str, ...]:
    """Return the attributes of ALTER ROLE ... WITH, in the words of ``_found()``."""
    plain = b" " + _PASSWORD.sub(b"", b" " + options)
    words = set(plain.decode("ascii", "replace").split())
    limit, until = _LIMIT.search(plain), _UNTIL.search(plain)
    return (
        *(word for word in _WORDS if word in words),
        *((f"CONNECTION LIMIT {limit[1].decode()}",) if limit and limit[1] != b"-1" else ()),
        *((f"VALID UNTIL {until[1].decode('ascii', 'replace')}",) if until else ()),
    )


def _found(role: RoleState) -> tuple[str, ...]:
    flags = (
        role.is_superuser, role.inherits, role.may_create_roles, role.may_create_databases,
        role.may_replicate, role.bypasses_row_security,
    )  # fmt: skip
    return (
        *(word for word, is_so in zip(_WORDS, flags, strict=True) if is_so),
        *((f"CONNECTION LIMIT {role.connection_limit}",) if role.connection_limit != -1 else ()),
        *((f"VALID UNTIL {role.valid_until}",) if role.valid_until is not None else ()),
    )


def _attributes(wanted: _Wanted, there: Mapping[str, RoleState], me: str) -> Iterator[CheckRecord]:
    for name, stated in sorted(wanted.attributes.items()):
        if name == me or name not in there:  # the server's own superuser stays as it is
            continue
        found = _found(there[name])
        if stated != found:
            yield failed(
                "roles",
                "the role has other attributes than in the source",
                subject=name,
                expected=", ".join(stated) or "none",
                found=", ".join(found) or "none",
            )


def _settings(
    wanted: _Wanted, there: Mapping[str, RoleState], me: str, decode: Callable[[bytes], str]
) -> Iterator[CheckRecord]:
    """A setting may be refused for what the source's server knew and this one does not."""
    for name, stated in sorted(wanted.settings.items()):
        if name == me or name not in there:
            continue
        lost = stated - {decode(one).lower() for one in there[name].settings}
        if lost:
            yield failed(
                "roles",
                f"settings of the role did not come back: {listed(sorted(lost))}",
                subject=name,
                severity="warning",
            )


def _memberships(
    wanted: _Wanted,
    there: Mapping[str, RoleState],
    found: Mapping[tuple[bytes, bytes], Membership],
    decode: Callable[[bytes], str],
) -> Iterator[CheckRecord]:
    joined = {(decode(role), decode(member)): one for (role, member), one in found.items()}
    for (role, member), options in sorted(wanted.memberships.items()):
        if role not in there or member not in there:
            continue
        one = joined.get((role, member))
        if one is None:
            yield failed("roles", f"{member} is not a member of {role}", subject=member)
            continue
        here = {"ADMIN"} if one.is_admin else set()
        if one.inherits is not None:
            here |= {f"INHERIT {str(one.inherits).upper()}", f"SET {str(one.may_set).upper()}"}
        # granted by several, it is what the most generous of them gave
        most = {each for each in options if each.replace(" FALSE", " TRUE") not in options - {each}}
        if not most <= here or ("ADMIN" in here) != ("ADMIN" in most):
            yield failed(
                "roles",
                f"{member} is a member of {role} with other options than in the source",
                subject=member,
                severity="warning",
                expected=", ".join(sorted(most)) or "none",
                found=", ".join(sorted(here)) or "none",
            )


def _options(text: bytes) -> set[str]:
    """Return the options of a GRANT as ``_memberships()`` spells them. Before 16 there is ADMIN alone."""
    words = {b" ".join(each.split()).decode("ascii", "replace") for each in text.split(b",") if each.strip()}
    return {"ADMIN" if word in {"ADMIN OPTION", "ADMIN TRUE"} else word for word in words}
