-- The role that pgstow backs up with. Run by an administrator, once on each server:
--
--   psql -v ON_ERROR_STOP=1 -d shop -f backup-role.sql
--   psql -c '\password pgstow'
--
-- It can read everything and change nothing.
BEGIN;

CREATE ROLE pgstow LOGIN
  CONNECTION LIMIT 20;

-- Every table, view and sequence, also those that are made later.
GRANT pg_read_all_data TO pgstow;
-- Who waits for a lock, so that a backup can step aside; settings of the server.
GRANT pg_monitor TO pgstow;
-- Rows that row security hides. Only a superuser (from PostgreSQL 16 on: a role that has it) can give this.
ALTER ROLE pgstow BYPASSRLS;

-- It changes nothing, even by mistake, and is not ended in the middle of a long table.
ALTER ROLE pgstow SET default_transaction_read_only = on;
ALTER ROLE pgstow SET statement_timeout = 0;

COMMIT;

-- Only where a database has large objects: they have privileges of their own, one by one, which pg_read_all_data does not
-- give. This lets the role read all of them (superuser only; "pgstow doctor" says whether it is needed):
--
--   ALTER ROLE pgstow SET lo_compat_privileges = on;
