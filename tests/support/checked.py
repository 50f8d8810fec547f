"""Databases that were restored and are then broken, and what the checks say of them."""

from __future__ import annotations

import contextlib
from typing import Any

import psycopg
from psycopg import sql

from pgstow.assurance.drill.checking import check_restored
from pgstow.assurance.drill.context import CheckContext
from pgstow.assurance.drill.globals import create_globals
from pgstow.catalog.drills import CheckRecord
from pgstow.core.progress import Progress, SilentProgress
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.raw import open_raw
from pgstow.postgres.server import Cluster
from pgstow.restore import ArchiveFiles, RestoreReport
from pgstow.restore.guard import GUARD_SETTINGS
from support.backups import tools_for
from support.restoring import bring_back, execute

__all__ = [
    "ATTRIBUTES",
    "ROLES",
    "SUBSCRIPTION",
    "WITH_HISTORY",
    "WITH_HISTORY_SINCE_18",
    "WITH_ICU",
    "checked",
    "copied",
    "issues",
    "make_roles",
    "restored_in",
]

ROLES = ("checks_owner", "checks_reader")

ATTRIBUTES = """
ALTER ROLE checks_reader WITH CREATEDB BYPASSRLS NOINHERIT CONNECTION LIMIT 7 VALID UNTIL '2031-01-01 00:00+05'
    PASSWORD 'not CREATEROLE';
ALTER ROLE checks_reader SET search_path = app, 'a b';
ALTER ROLE checks_reader SET app.tenant = 'one';
GRANT pg_monitor TO checks_reader WITH ADMIN OPTION;
"""

# What is hard to compare: constraints that were never validated, expressions that are printed in another way after a restore,
# roles in an order of their own, names that stand for several things.
WITH_HISTORY = """
CREATE TABLE app.status (
    id int PRIMARY KEY, kind varchar(20) NOT NULL DEFAULT 'new' CHECK (kind IN ('new', 'old', 'it''s')),
    at timestamptz NOT NULL DEFAULT now() - '1 day'::interval, "Groß" text DEFAULT 'a' || 'b',
    n int CONSTRAINT even CHECK (n BETWEEN 1 AND 1000 AND n <> 5 AND n % 2 = 0),
    whole numeric GENERATED ALWAYS AS (coalesce(n, 0) * 2 + 1) STORED
);
INSERT INTO app.status (id, kind, at, n)
    SELECT i, (ARRAY['new', 'old'])[1 + i % 2], '2026-11-20 02:00+00'::timestamptz + i * '1 s'::interval, 2 * i FROM generate_series(1, 400) i;
ALTER TABLE app.status ADD CONSTRAINT never_held CHECK (n > 700 AND kind IN ('new', 'old')) NOT VALID;
ALTER TABLE app.orders ADD CONSTRAINT never_held FOREIGN KEY (id) REFERENCES app.accounts (id) NOT VALID;
ALTER TABLE app.parent ADD CONSTRAINT never_held CHECK (id > 100) NOT VALID;
ALTER DOMAIN app.positive ADD CONSTRAINT never_held CHECK (VALUE < 3) NOT VALID;
CREATE TABLE app.refs (id int REFERENCES app.status, at date) PARTITION BY RANGE (at);
CREATE TABLE app.refs_1 PARTITION OF app.refs FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
INSERT INTO app.refs VALUES (1, '2026-05-05');
CREATE INDEX only_parent ON ONLY app.refs (at);
CREATE VIEW app.some_status AS SELECT s.*, CASE WHEN kind IN ('new', 'old') THEN 1 ELSE 0 END AS flag FROM app.status s
    WHERE kind IN ('new', 'old') AND at > '2020-01-01' AND (n = 2 OR n = 4 AND id > 3) ORDER BY 1;
CREATE INDEX status_expr ON app.status (lower(kind), (n + 1)) WHERE kind IN ('new', 'old');
CREATE FUNCTION app.atomic(a int, b int DEFAULT 2 + 3) RETURNS int LANGUAGE sql
    BEGIN ATOMIC SELECT CASE WHEN a IN (1, 2) AND b > 0 AND a < 9 THEN b ELSE a END; END;
CREATE FUNCTION app.atomic(a text) RETURNS text LANGUAGE sql STABLE AS $$ SELECT a || 'two' $$;
CREATE OPERATOR app.@@@ (LEFTARG = int, RIGHTARG = int, FUNCTION = int4pl);
CREATE OPERATOR app.@@@ (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = int8pl);
CREATE FUNCTION app.noted() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN RETURN NEW; END $f$;
CREATE TRIGGER conditional AFTER UPDATE OF n ON app.status FOR EACH ROW
    WHEN (OLD.kind IN ('new', 'old') AND NEW.n IS DISTINCT FROM OLD.n) EXECUTE FUNCTION app.noted();
CREATE TRIGGER sleeping AFTER DELETE ON app.status FOR EACH ROW EXECUTE FUNCTION app.noted();
ALTER TABLE app.status DISABLE TRIGGER sleeping;
CREATE POLICY two ON app.status TO checks_reader, checks_owner USING (kind IN ('new', 'old') AND n > 0);
ALTER TABLE app.status ENABLE ROW LEVEL SECURITY;
ALTER TABLE app.status FORCE ROW LEVEL SECURITY;
GRANT SELECT, INSERT ON app.status TO checks_reader WITH GRANT OPTION;
GRANT UPDATE (n) ON app.status TO checks_owner;
GRANT EXECUTE ON FUNCTION app.atomic(text) TO checks_reader;
REVOKE EXECUTE ON FUNCTION app.atomic(text) FROM PUBLIC;
GRANT USAGE ON SCHEMA app TO checks_reader, checks_owner;
CREATE SEQUENCE app.untouched;
CREATE TABLE app.toasted (id int PRIMARY KEY, body text);
ALTER TABLE app.toasted ALTER body SET STORAGE EXTERNAL;
INSERT INTO app.toasted SELECT i, repeat('x', 9000) FROM generate_series(1, 50) i;
ALTER SCHEMA public OWNER TO checks_owner;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO checks_reader;
CREATE VIEW public.grouped AS SELECT s.id, s.kind, count(o.*) AS n FROM app.status s LEFT JOIN app.orders o USING (id) GROUP BY s.id;
CREATE VIEW public.regrouped AS SELECT g.*, g.n > 0 AS has_any FROM public.grouped g;
CREATE FUNCTION public.kind_of(app.toasted) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT ''k''';
ALTER TABLE app.toasted ADD CONSTRAINT by_itself CHECK (public.kind_of(toasted) <> '');
CREATE TABLE public.left_one (id serial PRIMARY KEY, other int);
CREATE TABLE public.right_one (id int PRIMARY KEY DEFAULT nextval('public.left_one_id_seq'), other int REFERENCES public.left_one);
ALTER TABLE public.left_one ADD FOREIGN KEY (other) REFERENCES public.right_one DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE public.left_one REPLICA IDENTITY FULL, ALTER other SET STATISTICS 500;
CREATE TABLE app.turned (at date NOT NULL, amount numeric DEFAULT -1.5 CONSTRAINT within CHECK (amount > -100 AND amount <= 1e6), id int NOT NULL)
    PARTITION BY RANGE (at);
CREATE TABLE app.turned_1 (id int NOT NULL, gone text, amount numeric DEFAULT -2, at date NOT NULL,
    CONSTRAINT within CHECK (amount > -100 AND amount <= 1e6));
ALTER TABLE app.turned_1 DROP gone;
ALTER TABLE app.turned ATTACH PARTITION app.turned_1 FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
INSERT INTO app.turned VALUES ('2026-02-02', -7.50, 1);
CREATE SCHEMA other;
CREATE SEQUENCE other.down INCREMENT -3 MINVALUE -100 MAXVALUE 100 START 10 CYCLE CACHE 5;
SELECT nextval('other.down'), nextval('other.down');
CREATE SEQUENCE other.owned AS smallint;
CREATE TABLE app.numbered (id int DEFAULT nextval('other.down'), n smallint DEFAULT nextval('other.owned'),
    g int GENERATED BY DEFAULT AS IDENTITY (START 100 INCREMENT 10 CYCLE MAXVALUE 1000));
ALTER SEQUENCE other.owned OWNED BY NONE;
INSERT INTO app.numbered DEFAULT VALUES;
CREATE TABLE app.booked (room int, during int4range, EXCLUDE USING gist (during WITH &&) WHERE (room > 0) DEFERRABLE);
INSERT INTO app.booked VALUES (1, '[1,5)'), (1, '[6,8)');
CREATE RULE kept AS ON UPDATE TO app.numbered WHERE new.n IS DISTINCT FROM old.n DO ALSO
    INSERT INTO app.numbered (n) VALUES (new.n + 1);
CREATE STATISTICS app.of_expression (mcv) ON (n + 1), (lower(kind)) FROM app.status;
CREATE TEXT SEARCH DICTIONARY app.simple_words (TEMPLATE = pg_catalog.simple, stopwords = english);
CREATE TEXT SEARCH CONFIGURATION app.words (COPY = pg_catalog.english);
ALTER TEXT SEARCH CONFIGURATION app.words ALTER MAPPING FOR word WITH app.simple_words;
CREATE FUNCTION app.as_text(app.pair) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT ($1).a::text $$;
CREATE CAST (app.pair AS text) WITH FUNCTION app.as_text(app.pair) AS ASSIGNMENT;
ALTER TABLE app.orders ALTER CONSTRAINT orders_account_fkey DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE app.accounts CLUSTER ON accounts_pkey;
ALTER DEFAULT PRIVILEGES FOR ROLE checks_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
COMMENT ON FUNCTION app.atomic(text) IS 'takes a text';
CREATE PUBLICATION some_rows FOR TABLE app.status (id, n) WHERE (id > 7 AND id <> 9);
CREATE PUBLICATION whole_schema FOR TABLES IN SCHEMA other;
CREATE INDEX never_finished ON app.many_pages (id);
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'app.never_finished'::regclass;
"""

# It belongs to a database and goes into no copy of it; a database that has one cannot be dropped.
SUBSCRIPTION = """CREATE SUBSCRIPTION far_away CONNECTION 'host=nowhere.example password=hidden'
    PUBLICATION p WITH (connect = false, slot_name = NONE)"""

# What builds with ICU alone know: not those that come as a Python package.
WITH_ICU = """
CREATE COLLATION public.numeric (provider = icu, locale = 'de-u-kn-true', deterministic = true);
CREATE TABLE public.sorted (word text COLLATE public.numeric PRIMARY KEY, small text COLLATE "C");
INSERT INTO public.sorted VALUES ('a10', 'B'), ('a9', 'a');
"""

# What later releases know besides.
WITH_HISTORY_SINCE_18 = """
ALTER TABLE app.orders ADD CONSTRAINT unenforced FOREIGN KEY (account) REFERENCES app.accounts NOT ENFORCED;
ALTER TABLE app.status ADD CONSTRAINT loose CHECK (n > 5000) NOT ENFORCED;
ALTER TABLE app.many_pages ADD CONSTRAINT filled NOT NULL filler NOT VALID;
CREATE TABLE app.unheld (a int CONSTRAINT inline CHECK (a > 3) NOT ENFORCED, b int GENERATED ALWAYS AS (a * 2) VIRTUAL);
INSERT INTO app.unheld VALUES (1);
"""


def make_roles(cluster: Cluster) -> None:
    """Make the roles that the database with a history needs, one a member of the other."""
    server = ConnInfo.parse(cluster.conninfo())
    with psycopg.connect(server.connect_string(), autocommit=True) as connection:
        there = {name for (name,) in connection.execute("SELECT rolname FROM pg_roles")}
    for role in ROLES:
        if role not in there:
            execute(server, f"CREATE ROLE {role}")
    execute(server, "GRANT checks_reader TO checks_owner")
    execute(server, ATTRIBUTES)


def copy_roles(globals_sql: bytes, cluster: Cluster) -> None:
    """Make the roles of a globals.sql, as a drill does."""
    server = ConnInfo.parse(cluster.conninfo())
    with contextlib.closing(open_raw(server, encoding="UTF8", settings=GUARD_SETTINGS)) as session:
        create_globals(session, globals_sql)


def restored_in(
    cluster: Cluster, files: ArchiveFiles, name: str = "restored", *, progress: Progress | None = None
) -> tuple[ConnInfo, RestoreReport]:
    """Restore into a new database of a server of our own, as a drill does."""
    copy_roles(files.read("globals.sql"), cluster)
    target = ConnInfo.parse(cluster.conninfo(name))
    report = bring_back(files, target, create=True, compare=True, report_differences=True, progress=progress)
    return target, report


def copied(cluster: Cluster, name: str, *, template: str = "restored") -> ConnInfo:
    """Return a copy of a database with its settings, to be broken."""
    with psycopg.connect(cluster.conninfo(), autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        )
    copy = ConnInfo.parse(cluster.conninfo(name))
    execute(copy, f"ALTER DATABASE {name} SET work_mem = '5MB'")  # which are not copied
    execute(copy, f"REVOKE TEMP ON DATABASE {name} FROM PUBLIC")
    execute(copy, f"GRANT CREATE ON DATABASE {name} TO checks_reader")
    execute(copy, f"ALTER ROLE checks_owner IN DATABASE {name} SET enable_sort = off")
    if template == "restored":
        execute(copy, SUBSCRIPTION)
    return copy


def checked(
    target: ConnInfo, files: ArchiveFiles, report: RestoreReport, **context: Any
) -> tuple[CheckRecord, ...]:
    """Return what the checks find; ``context`` is of CheckContext."""
    given = {"tools": tools_for(target.with_database("postgres")), **context}
    return check_restored(
        CheckContext(target=target, files=files, restored=report, **given), SilentProgress()
    )


def issues(records: tuple[CheckRecord, ...]) -> list[CheckRecord]:
    """Return what failed or is not known."""
    return [one for one in records if one.outcome in {"fail", "unknown"}]
