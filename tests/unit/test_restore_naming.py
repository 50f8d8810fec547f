"""What the archive's statements say about names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgstow.restore.naming import altered_table, mentioned_roles, rename_database, split_name
from support.archives import entry


@pytest.mark.parametrize(
    ("desc", "statement", "roles"),
    [
        (b"ACL", b"GRANT SELECT ON TABLE public.t TO reader;\n", {b"reader"}),
        (b"ACL", b'REVOKE ALL ON TABLE public.t FROM owner;\nGRANT SELECT ON TABLE public.t TO "Odd ""one"";\nx" WITH GRANT OPTION;\n', {b"owner", b'Odd "one";\nx'}),
        (b"ACL", b"GRANT ALL ON SCHEMA public TO PUBLIC;\n", set()),
        (b"ACL", b'GRANT SELECT ON TABLE public." TO nobody" TO reader;\n', {b"reader"}),
        (b"ACL", b"SET SESSION AUTHORIZATION grantor;\nGRANT SELECT(a,b) ON TABLE t TO r2;\nRESET SESSION AUTHORIZATION;\n", {b"grantor", b"r2"}),
        (b"DEFAULT ACL", b"ALTER DEFAULT PRIVILEGES FOR ROLE boss IN SCHEMA app GRANT SELECT ON TABLES  TO r;\n", {b"boss", b"r"}),
        (b"POLICY", b"CREATE POLICY p ON app.t TO a, \"b, c\" USING ((x = ' TO d'::text));\n", {b"a", b"b, c"}),
        (b"POLICY", b'CREATE POLICY p ON "a.p"."t x" AS RESTRICTIVE FOR SELECT TO r USING (true);\n', {b"r"}),
        (b"POLICY", b"CREATE POLICY p ON app.t USING ((x = ' TO d'::text));\n", set()),
        (b"USER MAPPING", b"CREATE USER MAPPING FOR \"u x\" SERVER s OPTIONS (\n    password 'FOR me SERVER'\n);\n", {b"u x"}),
        (b"USER MAPPING", b"CREATE USER MAPPING FOR PUBLIC SERVER s;\n", set()),
        (b"USER MAPPING", b"CREATE USER MAPPING FOR public SERVER s;\n", set()),
        (b"TABLE", b"GRANT x TO y;\n", set()),
    ],
)  # fmt: skip
def test_roles(desc: bytes, statement: bytes, roles: set[bytes]) -> None:
    assert mentioned_roles(entry(1, desc, defn=statement)) == roles


@pytest.mark.parametrize(
    ("statements", "renamed"),
    [
        (b"ALTER DATABASE src SET a TO 'b';\n", b"ALTER DATABASE <new> SET a TO 'b';\n"),
        (b'ALTER DATABASE "DATABASE x; y" SET a TO \'DATABASE z; it\'\'s\';\n', b"ALTER DATABASE <new> SET a TO 'DATABASE z; it''s';\n"),
        (b"ALTER ROLE r IN DATABASE src SET a TO E'\\\\DATABASE q';\n", b"ALTER ROLE r IN DATABASE <new> SET a TO E'\\\\DATABASE q';\n"),
        (b"COMMENT ON DATABASE src IS 'DATABASE src';\n", b"COMMENT ON DATABASE <new> IS 'DATABASE src';\n"),
        (b"GRANT CONNECT ON DATABASE src TO src;\n", b"GRANT CONNECT ON DATABASE <new> TO src;\n"),
        (b"ALTER DATABASE src CONNECTION LIMIT = 7;\n", b"ALTER DATABASE <new> CONNECTION LIMIT = 7;\n"),
    ],
)  # fmt: skip
def test_renaming_a_database(statements: bytes, renamed: bytes) -> None:
    assert rename_database(statements, b"<new>") == renamed


@given(st.text(min_size=1), st.text())
def test_renaming_touches_the_name_alone(name: str, value: str) -> None:
    quoted = b'"' + name.encode(errors="replace").replace(b'"', b'""') + b'"'
    literal = b"'" + value.encode(errors="replace").replace(b"'", b"''") + b"'"
    pattern = b"ALTER DATABASE %s SET a TO " + literal + b";\nALTER ROLE r IN DATABASE %s SET b TO c;\n"

    assert rename_database(pattern.replace(b"%s", quoted), b"NEW") == pattern.replace(b"%s", b"NEW")


def test_names_of_altered_tables() -> None:
    statement = b'ALTER TABLE ONLY "a.b"."c ""d"""\n    ADD CONSTRAINT x UNIQUE (id);\n'
    assert altered_table(entry(1, b"CONSTRAINT", defn=statement)) == (b"a.b", b'c "d"')
    assert altered_table(entry(1, b"TRIGGER", defn=b"CREATE TRIGGER t ...")) is None
    assert split_name(b"plain") == (None, b"plain")
