"""The first settings file that the wizard writes: right for whatever a database holds, its guesses explained."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pgstow.config.first_file import DatabaseLook, FirstFile, first_file
from pgstow.postgres.first_look import TableLook, TimeColumn
from support.settings_files import look

GIB = 1024**3


def table(
    name: str, size_bytes: int = GIB, *columns: str, schema: str = "public", indexed: tuple[str, ...] = ()
) -> TableLook:
    return TableLook(
        schema=schema,
        name=name,
        size_bytes=size_bytes,
        time_columns=tuple(TimeColumn(name=each, is_indexed=each in indexed) for each in columns),
    )


def write(*tables: TableLook, is_supabase: bool = False, location: str = "/srv/backups") -> FirstFile:
    """Return a first file that the reader takes."""
    made = first_file(DatabaseLook(name="shop", tables=tables, is_supabase=is_supabase), location=location)
    reading = look(made.text)
    assert reading.errors == (), made.text
    assert reading.settings is not None
    critical = reading.settings.databases["shop"].critical
    assert tuple(f"{each.schema}.{each.name}" for each in critical) == made.critical
    assert reading.settings.databases["shop"].must_contain == made.must_contain
    assert str(reading.settings.databases["shop"].url) == "${DATABASE_URL}"
    return made


def test_what_looks_precious_is_critical() -> None:
    made = write(
        table("http_log", 90 * GIB, "created_at"),
        table("payments", 2 * GIB, "paid_at", "updated_at"),
        table("bookings", GIB, "starts_at", "created_at", "updated_at", indexed=("updated_at", "starts_at")),
        table("WalletLedger", 3 * GIB),
        table("transactions", 9 * GIB, schema="auth"),
        table("users", 0, schema="auth"),
    )
    assert made.critical == ("public.WalletLedger", "public.bookings", "public.payments")
    assert made.must_contain == ("auth.users", *made.critical)
    settings_ = look(made.text).settings
    assert settings_ is not None
    columns = [each.time_column for each in settings_.databases["shop"].critical]
    assert columns == [None, "updated_at", "updated_at"]
    assert "public.http_log # 90.0 GiB" in made.text
    assert "Storage" not in made.text
    assert "critical" in settings_.plans


def test_nothing_precious_is_found() -> None:
    made = write(table("http_log", 5 * GIB, "at"), table("cars"))
    assert made.critical == made.must_contain == ()
    reading = look(made.text)
    assert reading.settings is not None
    assert "critical" not in reading.settings.plans
    assert "#   - table: public.http_log # 5.0 GiB" in made.text


def test_column_whose_name_is_no_value_in_yaml() -> None:
    write(table("ledger", GIB, "null"))


def test_empty_database() -> None:
    assert write().critical == ()


def test_supabase_is_told_about() -> None:
    made = write(table("users", schema="auth"), is_supabase=True)
    assert "Files in Storage are in no database backup" in made.text
    assert "Port 6543" in made.text
    assert made.must_contain == ("auth.users",)


def test_repository_elsewhere() -> None:
    made = write(table("ledger"), location="s3://bucket/pgstow")
    settings_ = look(made.text).settings
    assert settings_ is not None
    assert settings_.repositories["offsite"].location == "s3://bucket/pgstow"
    assert list(settings_.repositories) == ["offsite"]


def test_what_stands_in_comments_is_right_once_it_is_no_comment() -> None:
    text = write(table("ledger"), table("cars", 5, "made_at")).text
    for mark, inside in (
        ("    # assertions:", "    # "),
        ("  # offsite:", "  # "),
        ("  # dr:", "  # "),
        ("# contacts:", "# "),
    ):
        lines, on = [], False
        for line in text.split("\n"):
            on = line.startswith(mark) or (on and line.startswith(inside))
            lines.append(line.replace(inside, inside[:-2], 1) if on else line)
        text = "\n".join(lines)
    reading = look(text)
    assert reading.errors == (), text
    assert reading.warnings == ()
    assert reading.settings is not None
    assert list(reading.settings.repositories) == ["local", "offsite"]
    assert reading.settings.plans["dr"].repositories == ("offsite",)
    assert len(reading.settings.alerts.contacts) == 2
    (assertion,) = reading.settings.databases["shop"].assertions
    assert assertion.sql == 'SELECT count(*) FROM "public"."ledger"'
    assert reading.settings.plans["drill"].drill.strategy == "rotate"


NAMES = st.one_of(
    st.text(min_size=1, max_size=12),
    st.sampled_from(["ledger", "Bookings", "null", "no", "a b", "a#b", "x: y", "'", '"ledger"', "1.5", "*", "led\nger", "ledger\x1b[31m", "Überweisung_ledger", "a.ledger", "- ledger", "ledger $1"]),
)  # fmt: skip


@settings(max_examples=40)
@given(
    st.lists(
        st.builds(table, NAMES, st.integers(0, 2**60), NAMES, schema=NAMES),
        max_size=4,
        unique_by=lambda each: (each.schema, each.name),
    )
)
def test_any_names(tables: list[TableLook]) -> None:
    made = write(*tables)
    assert made.text.isprintable() or all(line.isprintable() for line in made.text.split("\n"))
