"""What entries say: COPY statements with any names, large objects, list files."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pgstow.core.errors import ArchiveError
from pgstow.postgres.archive import (
    Toc,
    TocEntry,
    copy_columns,
    copy_target,
    is_load_via_root,
    large_object_ids,
    list_file,
)
from support.archives import entry, header

names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)


def quoted(name: str) -> bytes:
    """Return the name as fmtId() of pg_dump writes it."""
    if re.fullmatch(r"[a-z_][a-z0-9_]*", name):
        return name.encode()
    return b'"' + name.replace('"', '""').encode() + b'"'


def data_entry(copy_stmt: bytes | None) -> TocEntry:
    return entry(5, b"TABLE DATA", has_data=True, copy_stmt=copy_stmt, file_name=b"5.dat")


@given(schema=names, table=names, columns=st.lists(names, max_size=5))
@example(schema="a", table=") FROM stdin;\n", columns=['"', '""', ", ", ") FROM stdin;\n", "("])
@example(schema="x.y", table='" (', columns=['a" (b'])
def test_columns_and_target_are_found_whatever_they_are_called(
    schema: str, table: str, columns: list[str]
) -> None:
    target = quoted(schema) + b"." + quoted(table)
    listed = b"(" + b", ".join(quoted(column) for column in columns) + b")" if columns else b""
    made = data_entry(b"COPY " + target + b" " + listed + b" FROM stdin;\n")
    assert copy_columns(made) == listed
    assert copy_target(made) == target


@pytest.mark.parametrize(
    "statement",
    [
        None,
        b"",
        b"COPY public.t (a) FROM stdin;\nDROP TABLE x;\n",
        b"COPY public.t (a) FROM PROGRAM 'rm';\n",
        b'COPY public."t (a) FROM stdin;\n',
        b"COPY public.t (a, ) FROM stdin;\n",
        b"COPY public.t (a) FROM stdin WITH CSV;\n",
    ],
)
def test_other_statements_are_refused(statement: bytes | None) -> None:
    with pytest.raises(ArchiveError, match="COPY"):
        copy_columns(data_entry(statement))


def test_a_hostile_column_list_takes_no_time_to_refuse() -> None:
    with pytest.raises(ArchiveError):
        copy_columns(data_entry(b"COPY public.t (" + b'"a""", ' * 100_000 + b'"'))


def test_load_via_root() -> None:
    assert is_load_via_root(entry(1, defn=b"-- load via partition root public.r"))
    assert not is_load_via_root(entry(1, defn=b"CREATE TABLE t (); -- load via partition root x"))
    assert not is_load_via_root(entry(1, defn=None))


def test_large_objects_of_older_archives() -> None:
    one = entry(9, b"BLOBS", b"BLOBS", has_data=True, file_name=b"blobs.toc")
    toc = Toc(header=header((1, 15, 0)), entries=(entry(2, b"BLOB", oid=70), entry(3, b"BLOB", oid=60), one))
    assert large_object_ids(toc, one) == (60, 70)


def test_large_objects_of_newer_archives() -> None:
    data = [entry(9 + i, b"BLOBS", has_data=True, dependencies=(1, 2 + i)) for i in range(2)]
    listed = (b"60\n70\n4294967295\n", b"80\n")
    groups = [entry(2 + i, b"BLOB METADATA", defn=oids) for i, oids in enumerate(listed)]
    toc = Toc(header=header(), entries=(entry(1), *groups, *data))
    assert large_object_ids(toc, data[0]) == (60, 70, 4294967295)
    assert large_object_ids(toc, data[1]) == (80,)


@pytest.mark.parametrize("listed", [b"60", b"60\n-1\n", b"60 70\n", b"60\n\n"])
def test_a_list_of_large_objects_that_is_none(listed: bytes) -> None:
    data = entry(9, b"BLOBS", has_data=True, dependencies=(2,))
    toc = Toc(header=header(), entries=(entry(2, b"BLOB METADATA", defn=listed), data))
    with pytest.raises(ArchiveError, match="one per line"):
        large_object_ids(toc, data)


def test_large_objects_without_their_metadata() -> None:
    data = entry(9, b"BLOBS", has_data=True, dependencies=(2,))
    with pytest.raises(ArchiveError, match="0 BLOB METADATA"):
        large_object_ids(Toc(header=header(), entries=(data,)), data)


def test_list_file_has_one_line_for_each_entry() -> None:
    listed = list_file((entry(7, tag=b"a\nb; c\r"), entry(3, namespace=None)))
    assert listed == b"7; 1259 16391 TABLE public a b; c  postgres\n3; 1259 16387 TABLE - t postgres\n"
