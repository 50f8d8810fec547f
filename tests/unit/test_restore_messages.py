"""What pg_restore's output becomes."""

from __future__ import annotations

from pgstow.restore.messages import read_failure, without_statements
from support.archives import entry

SAID = """pg_restore: error: could not execute query: ERROR:  relation "public.x" does not exist
DETAIL:  it is gone
Command was: ALTER TABLE ONLY public.t
    ADD CONSTRAINT t_fk FOREIGN KEY (secret 'sesame') REFERENCES public.x(id);


pg_restore: error: a worker process died unexpectedly"""
KEY = entry(
    7,
    b"FK CONSTRAINT",
    b"t t_fk",
    defn=b"ALTER TABLE ONLY public.t\n    ADD CONSTRAINT t_fk FOREIGN KEY (secret 'sesame') REFERENCES public.x(id);\n",
)


def test_the_entry_is_found_by_its_statement() -> None:
    failure = read_failure(SAID, [entry(1), KEY])

    assert failure.entry is KEY
    assert failure.message == 'relation "public.x" does not exist DETAIL: it is gone'


def test_the_entry_is_found_by_its_drop() -> None:
    table = entry(3, drop_stmt=b'DROP TABLE public."a b";\n')
    said = 'pg_restore: error: could not execute query: ERROR:  no\nCommand was: DROP TABLE IF EXISTS public."a b";\n'

    assert read_failure(said, [KEY, table]).entry is table


def test_a_change_of_owner_is_shown() -> None:
    said = "pg_restore: error: could not execute query: ERROR:  no\nCommand was: ALTER TABLE public.t OWNER TO them;\n"

    assert read_failure(said, [KEY]).message == "no (ALTER TABLE public.t OWNER TO them;)"


def test_other_failures_have_no_entry() -> None:
    failure = read_failure("pg_restore: error: could not open input file", [KEY])

    assert (failure.entry, failure.message) == (None, "could not open input file")


def test_statements_are_left_out() -> None:
    said = f"WARNING:  one\n{SAID}\npg_restore: warning: two"

    lines = without_statements(said)

    assert not any("sesame" in line for line in lines)
    assert lines[0] == "WARNING:  one"
    assert lines[-1] == "pg_restore: warning: two"
