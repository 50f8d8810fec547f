"""Which statements are left when an archive is only to drop."""

from __future__ import annotations

import pytest

from pgstow.postgres.archive import Section, Toc, TocEntry, drop_only, read_directory_toc, write_directory_toc
from support.archives import entry, header

SETTINGS = (entry(1, b"ENCODING", defn=b"SET client_encoding = 'UTF8';\n", drop_stmt=None),)


def drops(*entries: TocEntry) -> list[bytes | None]:
    """Return what is left to be run, in archive order; pg_restore runs it backwards."""
    toc = drop_only(Toc(header=header(), entries=(*SETTINGS, *entries)))
    assert read_directory_toc(write_directory_toc(toc)) == toc
    assert toc.entries[0].desc == b"ENCODING"
    return [one.drop_stmt for one in toc.entries[1:]]


def test_nothing_is_left_to_create() -> None:
    table = entry(
        5, drop_stmt=b"DROP TABLE public.t;\n", table_am=b"heap", tablespace=b"fast", dependencies=(4,)
    )
    kept = drop_only(Toc(header=header(), entries=(table,))).entries[0]
    assert (kept.defn or b"").startswith(b"--")
    assert not kept.owner
    assert (kept.tablespace, kept.table_am, kept.copy_stmt, kept.dependencies) == (None, None, None, ())
    assert kept.drop_stmt == b"DROP TABLE public.t;\n"


def test_what_has_no_drop_goes() -> None:
    assert not drops(
        entry(5, b"DATABASE", drop_stmt=b"DROP DATABASE x;\n"),
        entry(6, b"TABLE DATA", has_data=True, drop_stmt=None, file_name=b"6.dat"),
        entry(7, b"ACL", drop_stmt=b""),
        entry(8, b"SCHEMA", b"public", drop_stmt=b"-- *not* dropping schema, since initdb creates it\n"),
    )


def test_kept_entries_are_not_dropped() -> None:
    toc = Toc(header=header(), entries=(entry(5, b"EXTENSION"), entry(6)))
    assert [one.dump_id for one in drop_only(toc, keep=lambda one: one.desc == b"EXTENSION").entries] == [6]


@pytest.mark.parametrize("kind", [b"CONSTRAINT", b"FK CONSTRAINT", b"CHECK CONSTRAINT"])
def test_if_exists_goes_to_the_right_place_whatever_the_names(kind: bytes) -> None:
    name = b'"x DROP CONSTRAINT ""y"" IF EXISTS"'
    [made] = drops(entry(5, kind, drop_stmt=b"ALTER TABLE ONLY s.%b DROP CONSTRAINT %b;\n" % (name, name)))
    comment, statement = (made or b"").split(b"\n", 1)
    assert comment.startswith(b"-- DROP CONSTRAINT")
    assert statement == b"ALTER TABLE IF EXISTS ONLY s.%b DROP CONSTRAINT IF EXISTS %b;\n" % (name, name)


def test_foreign_tables_too() -> None:
    [made] = drops(entry(5, b"CHECK CONSTRAINT", drop_stmt=b"ALTER FOREIGN TABLE s.t DROP CONSTRAINT c;\n"))
    assert (made or b"").endswith(b"\nALTER FOREIGN TABLE IF EXISTS s.t DROP CONSTRAINT IF EXISTS c;\n")


def test_dollar_quotes_do_not_end_early() -> None:
    [made] = drops(entry(5, b"DEFAULT", drop_stmt=b'ALTER TABLE s."$pgstow$" ALTER COLUMN c DROP DEFAULT;\n'))
    assert (made or b"").endswith(b"$xpgstow$;\n")
    assert (made or b"").count(b"$xpgstow$") == 2


def test_statements_of_unknown_form_are_left_to_pg_restore() -> None:
    statements = [
        b"ALTER TABLE s.t DROP CONSTRAINT c CASCADE;\n",
        b"DROP RULE r ON s.t;\n",
        b"SOMETHING NEW;\n",
    ]
    kinds = (b"CONSTRAINT", b"RULE", b"DEFAULT")
    assert drops(*(entry(5 + i, kinds[i], drop_stmt=statements[i]) for i in range(3))) == statements


def test_constraints_of_partitions_go_with_their_parents() -> None:
    attach = entry(9, b"INDEX ATTACH", b"part_pkey", drop_stmt=None, dependencies=(5, 6))
    parent = entry(5, b"CONSTRAINT", drop_stmt=b"ALTER TABLE ONLY public.root DROP CONSTRAINT root_pkey;\n")
    child = entry(6, b"CONSTRAINT", drop_stmt=b"ALTER TABLE ONLY public.part DROP CONSTRAINT part_pkey;\n")
    namesake = entry(
        7, b"CONSTRAINT", drop_stmt=b"ALTER TABLE ONLY public.other DROP CONSTRAINT part_pkey;\n"
    )
    made = drops(parent, child, namesake, attach)
    assert [b"public.root" in (one or b"") for one in made] == [True, False]


def test_large_objects_are_unlinked_in_small_groups() -> None:
    oids = range(1000, 1250)
    listed = b"".join(b"%d\n" % oid for oid in oids)
    group = entry(
        5, b"BLOB METADATA", drop_stmt=b"-- dummy", defn=listed, section=Section.DATA, owner=b"postgres"
    )
    toc = drop_only(Toc(header=header(), entries=(group, entry(6, b"SCHEMA"))))
    unlinking = [one for one in toc.entries if one.desc == b"BLOB"]
    assert [one.dump_id for one in unlinking] == [7, 8, 9]
    assert b"".join(one.drop_stmt or b"" for one in unlinking).count(b"1249") == 1
    assert all(b"%d" % oid in b"".join(one.drop_stmt or b"" for one in unlinking) for oid in oids)
