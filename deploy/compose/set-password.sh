#!/bin/sh
# Runs once, when the example database is made: gives the backup role the password that pgstow knows.
set -eu

# psql reads the file itself: what stands among a program's arguments can be read by others.
psql --no-psqlrc --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres <<'SQL'
\set password `cat "${SHOP_PASSWORD_FILE:-/run/secrets/shop_password}"`
ALTER ROLE pgstow PASSWORD :'password';
SQL
