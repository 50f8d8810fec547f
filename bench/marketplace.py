"""The databases that are measured, made by the server itself from nothing but row numbers.

Every value is a hash of its row number and a seed, so the same row count gives the same rows anywhere. Texts
repeat the way real ones do: names and states from short lists, references and plates nearly unique.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg import sql

__all__ = [
    "FULL_ROWS",
    "GENERATOR_VERSION",
    "TABLES",
    "append_one_percent",
    "count_ledger_rows",
    "grow_ledgers",
    "load",
    "load_many_tables",
    "load_wide",
    "read_everything",
    "update_everywhere",
    "update_one_percent",
]

FULL_ROWS: Final = 10_000_000
GENERATOR_VERSION: Final = 1  # raised whenever the rows change, so that a kept database is not mistaken
_UPDATED_ONE_IN: Final = 200  # a page range holds thousands of rows
_LEDGERS: Final = 4
_LEDGER_ROW_BYTES: Final = 152  # on its page
_LEDGER_ROWS_MADE: Final = 800_000
_LEDGER_NUMBERS: Final = 1_000_000_000  # each ledger has its own, else they would deduplicate
_WIDE_PARTS: Final = 4
_WIDE_ROW_BYTES: Final = 1024
_TABLES_PER_TRANSACTION: Final = 500  # each table and its index hold a lock to the end of the transaction

_FUNCTIONS = """
CREATE FUNCTION pg_temp.pick(i int8, seed int8, among int8) RETURNS int8 IMMUTABLE LANGUAGE sql
AS $$ SELECT (hashint8extended(i, seed) & 4611686018427387903) % among $$;
CREATE FUNCTION pg_temp.word(i int8, seed int8, among text[]) RETURNS text IMMUTABLE LANGUAGE sql
AS $$ SELECT among[1 + ((hashint8extended(i, seed) & 4611686018427387903) % array_length(among, 1))::int] $$;
CREATE FUNCTION pg_temp.reference(i int8, salt text) RETURNS uuid IMMUTABLE LANGUAGE sql
AS $$ SELECT md5(salt || i)::uuid $$;
CREATE FUNCTION pg_temp.moment(i int8, every interval) RETURNS timestamptz IMMUTABLE LANGUAGE sql
AS $$ SELECT timestamptz '2022-01-01 00:00:00+00' + i * every
      + ((hashint8extended(i, 99) & 1048575) * interval '1 microsecond') $$;
"""

_CLIENTS = """
INSERT INTO clients
SELECT i, pg_temp.reference(i, 'client'),
    pg_temp.word(i, 1, '{Ana,Bruno,Carla,Diego,Elena,Fabio,Greta,Hugo,Ines,Joao,Karin,Luis,Marta,Nuno}') || ' '
      || pg_temp.word(i, 2, '{Almeida,Berg,Costa,Duarte,Ekman,Ferreira,Garcia,Horvat,Ivanov,Jansen}'),
    'user' || i || '@' || pg_temp.word(i, 3, '{example.com,example.org,mail.example.net}'),
    '+351' || 910000000 + pg_temp.pick(i, 4, 89999999),
    pg_temp.word(i, 5, '{PT,ES,FR,DE,IT,SE}'),
    jsonb_build_object('lang', pg_temp.word(i, 6, '{pt,es,fr,de,en}'), 'newsletter', i % 3 = 0,
        'score', pg_temp.pick(i, 7, 1000)),
    ARRAY[pg_temp.word(i, 8, '{new,regular,vip}'), pg_temp.word(i, 9, '{app,web,desk}')],
    pg_temp.moment(i, interval '4 minutes')
FROM generate_series({first}::int8, {rows}::int8) AS i
"""

_BOOKINGS = """
INSERT INTO bookings
SELECT i, 1 + pg_temp.pick(i, 11, {clients}),
    upper(substr(md5('plate' || pg_temp.pick(i, 12, 40000)), 1, 6)),
    pg_temp.word(i, 13, '{requested,confirmed,active,completed,completed,completed,cancelled}'),
    date_trunc('minute', pg_temp.moment(i, interval '1 minute')),
    date_trunc('minute', pg_temp.moment(i, interval '1 minute')) + (1 + pg_temp.pick(i, 14, 14)) * interval '1 day',
    (2000 + pg_temp.pick(i, 15, 180000))::numeric / 100,
    jsonb_build_object('seats', pg_temp.pick(i, 16, 4), 'insurance',
        pg_temp.word(i, 17, '{basic,plus,full}'), 'km', pg_temp.pick(i, 18, 3000)),
    CASE WHEN i % 5 = 0 THEN 'pick-up at gate ' || pg_temp.pick(i, 19, 90) || ', call on arrival' END,
    pg_temp.moment(i, interval '1 minute')
FROM generate_series({first}::int8, {rows}::int8) AS i
"""

_WALLET_LEDGER = """
INSERT INTO wallet_ledger
SELECT i, 1 + pg_temp.pick(i, 21, {clients}), 1 + pg_temp.pick(i, 22, {bookings}),
    pg_temp.word(i, 23, '{credit,debit,hold,release,refund}'),
    (pg_temp.pick(i, 24, 2000000) - 1000000)::numeric / 100,
    pg_temp.pick(i, 25, 100000000)::numeric / 100,
    pg_temp.reference(i, 'ledger'),
    pg_temp.word(i, 26, '{booking payment,deposit held,deposit released,refund of cancelled booking,top-up by card}')
      || ' #' || pg_temp.pick(i, 27, {bookings}),
    pg_temp.moment(i, interval '35 seconds')
FROM generate_series({first}::int8, {rows}::int8) AS i
"""

_WALLET_TRANSACTIONS = """
INSERT INTO wallet_transactions
SELECT i, 1 + pg_temp.pick(i, 31, {ledger}),
    pg_temp.word(i, 32, '{card,bank,wallet,voucher}'),
    'ch_' || substr(md5('charge' || i), 1, 24),
    pg_temp.word(i, 33, '{pending,settled,settled,settled,failed,disputed}'),
    (100 + pg_temp.pick(i, 34, 500000))::numeric / 100,
    pg_temp.pick(i, 35, 500)::numeric / 100,
    jsonb_build_object('risk', pg_temp.pick(i, 36, 100), 'channel', pg_temp.word(i, 37, '{ios,android,web}'),
        'last4', to_char(pg_temp.pick(i, 38, 10000), 'FM0000')),
    pg_temp.moment(i, interval '1 minute')
FROM generate_series({first}::int8, {rows}::int8) AS i
"""

_ACCOUNTING_ENTRIES = """
INSERT INTO accounting_entries
SELECT i, 1 + pg_temp.pick(i, 41, {ledger}),
    (1000 + 10 * pg_temp.pick(i, 42, 90))::text,
    CASE WHEN i % 2 = 0 THEN pg_temp.pick(i, 43, 2000000)::numeric / 100 ELSE 0 END,
    CASE WHEN i % 2 = 1 THEN pg_temp.pick(i, 43, 2000000)::numeric / 100 ELSE 0 END,
    pg_temp.reference(i, 'journal'),
    'period ' || to_char(pg_temp.moment(i, interval '1 minute'), 'YYYY-MM') || ' '
      || pg_temp.word(i, 44, '{rental income,commission payable,deposits held,card fees,VAT 23%}'),
    pg_temp.moment(i, interval '1 minute')::date,
    pg_temp.moment(i, interval '1 minute')
FROM generate_series({first}::int8, {rows}::int8) AS i
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    name: str
    share: float  # of all rows
    create: str
    insert: str
    finish: tuple[str, ...]  # keys and indexes, once the rows are in


TABLES: Final = (
    _Table(
        name="wallet_ledger",
        share=0.35,
        create="""CREATE TABLE wallet_ledger (id int8 NOT NULL, client_id int8 NOT NULL, booking_id int8, kind text NOT NULL,
            amount numeric(12,2) NOT NULL, balance_after numeric(14,2) NOT NULL, reference uuid NOT NULL,
            description text, created_at timestamptz NOT NULL)""",
        insert=_WALLET_LEDGER,
        finish=(
            "ALTER TABLE wallet_ledger ADD PRIMARY KEY (id)",
            "CREATE INDEX ON wallet_ledger (client_id, created_at)",
        ),
    ),
    _Table(
        name="bookings",
        share=0.20,
        create="""CREATE TABLE bookings (id int8 NOT NULL, client_id int8 NOT NULL, vehicle_plate text NOT NULL, status text NOT NULL,
            pick_up_at timestamptz NOT NULL, return_at timestamptz NOT NULL, price numeric(10,2) NOT NULL,
            extras jsonb NOT NULL, note text, created_at timestamptz NOT NULL, CHECK (return_at > pick_up_at))""",
        insert=_BOOKINGS,
        finish=("ALTER TABLE bookings ADD PRIMARY KEY (id)", "CREATE INDEX ON bookings (client_id)"),
    ),
    _Table(
        name="accounting_entries",
        share=0.20,
        create="""CREATE TABLE accounting_entries (id int8 NOT NULL, ledger_id int8 NOT NULL, account text NOT NULL,
            debit numeric(14,2) NOT NULL, credit numeric(14,2) NOT NULL, journal uuid NOT NULL, memo text,
            posted_on date NOT NULL, created_at timestamptz NOT NULL)""",
        insert=_ACCOUNTING_ENTRIES,
        finish=(
            "ALTER TABLE accounting_entries ADD PRIMARY KEY (id)",
            "CREATE INDEX ON accounting_entries (posted_on)",
        ),
    ),
    _Table(
        name="wallet_transactions",
        share=0.20,
        create="""CREATE TABLE wallet_transactions (id int8 NOT NULL, ledger_id int8 NOT NULL, provider text NOT NULL,
            provider_reference text NOT NULL, status text NOT NULL, amount numeric(12,2) NOT NULL,
            fee numeric(8,2) NOT NULL, payload jsonb NOT NULL, created_at timestamptz NOT NULL)""",
        insert=_WALLET_TRANSACTIONS,
        finish=("ALTER TABLE wallet_transactions ADD PRIMARY KEY (id)",),
    ),
    _Table(
        name="clients",
        share=0.05,
        create="""CREATE TABLE clients (id int8 NOT NULL, public_id uuid NOT NULL, full_name text NOT NULL, email text NOT NULL,
            phone text, country text NOT NULL, preferences jsonb NOT NULL, tags text[] NOT NULL,
            created_at timestamptz NOT NULL)""",
        insert=_CLIENTS,
        finish=("ALTER TABLE clients ADD PRIMARY KEY (id)", "CREATE UNIQUE INDEX ON clients (email)"),
    ),
)

_FOREIGN_KEYS = (
    ("bookings", "client_id", "clients"),
    ("wallet_ledger", "client_id", "clients"),
    ("wallet_ledger", "booking_id", "bookings"),
    ("accounting_entries", "ledger_id", "wallet_ledger"),
    ("wallet_transactions", "ledger_id", "wallet_ledger"),
)


def load(conninfo: str, rows: int) -> None:
    """Fill an empty database with the marketplace: five tables of ``rows`` rows together, keys, indexes.

    Vacuumed and analyzed, so that the first contestant does not pay for hint bits.
    """
    counts = _counts(rows)
    with ThreadPoolExecutor(2) as workers:  # largest first, so that both end together
        for done in [workers.submit(_load_table, conninfo, table, counts) for table in TABLES]:
            done.result()
    with psycopg.connect(conninfo, autocommit=True) as connection:
        for table, column, referred in _FOREIGN_KEYS:
            statement = sql.SQL("ALTER TABLE {} ADD FOREIGN KEY ({}) REFERENCES {}")
            connection.execute(statement.format(*map(sql.Identifier, (table, column, referred))))
        connection.execute("VACUUM (FREEZE, ANALYZE)")


def _counts(rows: int) -> dict[str, int]:
    return {table.name: max(1, round(rows * table.share)) for table in TABLES}


def _load_table(conninfo: str, table: _Table, counts: dict[str, int]) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(_FUNCTIONS)
        for statement in (table.create, _insert(table, counts, 1, counts[table.name]), *table.finish):
            connection.execute(statement.encode())


def _insert(table: _Table, counts: dict[str, int], first: int, last: int) -> str:
    """Return the statement that makes rows ``first`` to ``last``, which refer to rows of the ``counts``."""
    numbers = {
        "first": first,
        "rows": last,
        "clients": counts["clients"],
        "bookings": counts["bookings"],
        "ledger": counts["wallet_ledger"],
    }
    # Not psycopg.sql: its placeholders are braces, and so are PostgreSQL's array literals.
    insert = table.insert
    for name, number in numbers.items():
        insert = insert.replace("{" + name + "}", str(number))
    return insert


def append_one_percent(conninfo: str, rows: int, round_: int) -> None:
    """Add a hundredth of what a database of ``rows`` rows was loaded with to each of its tables."""
    counts = _counts(rows)
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(_FUNCTIONS)
        for table in reversed(TABLES):  # what is referred to, first
            more = max(1, counts[table.name] // 100)
            first = counts[table.name] + round_ * more + 1
            connection.execute(_insert(table, counts, first, first + more - 1).encode())


def update_one_percent(conninfo: str, round_: int) -> int:
    """Update every hundredth row of wallet_ledger, other ones in every round; return how many were updated."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        return connection.execute(
            "UPDATE wallet_ledger SET amount = amount + 1 WHERE id %% 100 = %s", (round_ % 100,)
        ).rowcount


def update_everywhere(conninfo: str, round_: int) -> None:
    """Update so many rows of every table, chosen by a hash, that every page range holds some; others in every round."""
    columns = {"wallet_ledger": "amount", "bookings": "price", "accounting_entries": "credit"}
    columns |= {"wallet_transactions": "fee", "clients": "created_at"}
    statement = "UPDATE {} SET {} = {} + {} WHERE hashint8extended(id, %s) %% {} = 0"
    with psycopg.connect(conninfo, autocommit=True) as connection:
        for table, column in columns.items():
            more = sql.SQL("interval '1 second'" if column == "created_at" else "1")
            names = map(sql.Identifier, (table, column, column))
            connection.execute(sql.SQL(statement).format(*names, more, _UPDATED_ONE_IN), (round_,))


def read_everything(conninfo: str) -> None:
    """Read every page once, so that nobody pays for the marks that the first reader leaves on changed rows."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(
            "SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off"
        )
        for table in TABLES:
            connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table.name)))


def grow_ledgers(conninfo: str, size_bytes: int) -> None:
    """Bring a database of ledgers, four tables without indexes, to about ``size_bytes``; never shrinks it.

    The first rows are made, all others are copies of them under other numbers, which is quicker.
    """
    wanted = max(1, size_bytes // _LEDGERS // _LEDGER_ROW_BYTES)
    with ThreadPoolExecutor(2) as workers:
        for done in [workers.submit(_grow_ledger, conninfo, part, wanted) for part in range(_LEDGERS)]:
            done.result()


def _grow_ledger(conninfo: str, part: int, wanted: int) -> None:
    ledger, name, before = TABLES[0], f"ledger_{part}", part * _LEDGER_NUMBERS
    made = min(wanted, _LEDGER_ROWS_MADE)
    copy = sql.SQL(
        "INSERT INTO {table} SELECT id + {have}, client_id, booking_id, kind, amount, balance_after, reference,"
        " description, created_at FROM {table} WHERE id <= {last}"
    )
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(_FUNCTIONS)
        connection.execute(
            ledger.create.replace("TABLE wallet_ledger", f"TABLE IF NOT EXISTS {name}").encode()
        )
        count = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(name))
        (have,) = connection.execute(count).fetchone() or (0,)
        if have == 0:
            insert = _insert(ledger, _counts(FULL_ROWS), before + 1, before + made)
            connection.execute(insert.replace("INTO wallet_ledger", f"INTO {name}").encode())
            have = made
        while have < wanted:
            more = min(have, wanted - have)
            connection.execute(copy.format(table=sql.Identifier(name), have=have, last=before + more))
            have += more
        connection.execute(sql.SQL("VACUUM (FREEZE, ANALYZE) {}").format(sql.Identifier(name)))


def count_ledger_rows(conninfo: str) -> int:
    """Return how many rows ``grow_ledgers`` has made so far, as its VACUUM counted them."""
    statement = "SELECT sum(reltuples)::int8 FROM pg_class WHERE relname LIKE 'ledger\\_%'"
    with psycopg.connect(conninfo) as connection:
        (rows,) = connection.execute(statement).fetchone() or (0,)
    return int(rows)


def load_many_tables(conninfo: str, count: int, rows_each: int = 20) -> None:
    """Fill an empty database with ``count`` small tables, each with a primary key and a few rows."""
    create = """
    DO $$ BEGIN
      FOR n IN {first} .. {last} LOOP
        EXECUTE format('CREATE TABLE tenant_%s_orders (id int8 PRIMARY KEY, customer text NOT NULL,
          amount numeric(12,2) NOT NULL, created_at timestamptz NOT NULL)', n);
        EXECUTE format('INSERT INTO tenant_%s_orders SELECT i, md5((%s * 1000 + i)::text), i * 1.5,
          timestamptz ''2024-01-01 00:00:00+00'' + i * interval ''1 hour''
          FROM generate_series(1, %s) AS i', n, n, {rows});
      END LOOP;
    END $$
    """
    with psycopg.connect(conninfo, autocommit=True) as connection:
        for first in range(1, count + 1, _TABLES_PER_TRANSACTION):
            last = min(count, first + _TABLES_PER_TRANSACTION - 1)
            connection.execute(sql.SQL(create).format(first=first, last=last, rows=rows_each))
        connection.execute("VACUUM (FREEZE, ANALYZE)")


def load_wide(conninfo: str, size_bytes: int) -> None:
    """Fill an empty database to about ``size_bytes`` on disk with rows of 1 KiB, in four tables.

    The rows are short enough never to be compressed by the server, so a byte of data takes as many pages as
    ordinary data does; the backup compresses them well, so a large database needs little room twice. Unlogged: the log is not what is measured.
    """
    rows = size_bytes // _WIDE_PARTS // (_WIDE_ROW_BYTES * 8 // 7)  # seven rows to a page
    with ThreadPoolExecutor(2) as workers:
        for done in [workers.submit(_load_wide_part, conninfo, part, rows) for part in range(_WIDE_PARTS)]:
            done.result()


def _load_wide_part(conninfo: str, part: int, rows: int) -> None:
    table = sql.Identifier(f"wide_{part}")
    with psycopg.connect(conninfo, autocommit=True) as connection:
        create = "CREATE UNLOGGED TABLE {} (id int8 NOT NULL, payload text NOT NULL)"
        connection.execute(sql.SQL(create).format(table))
        # A quarter of each row does not compress: a pack is full after some 100 MB, as memory goes up and
        # down with the filling of packs, and a trend must be seen through it.
        hashes = sql.SQL(" || ").join(
            sql.SQL("md5({} || i)").format(f"{part}.{number}.")
            for number in range(_WIDE_ROW_BYTES // 4 // 32)
        )
        statement = "INSERT INTO {} SELECT i, {} || repeat('marketplace payload ', 42) FROM generate_series(1, {}::int8) AS i"
        connection.execute(sql.SQL(statement).format(table, hashes, rows))
        connection.execute(sql.SQL("VACUUM (FREEZE, ANALYZE) {}").format(table))
