"""In which packages extensions come, for hints: what a person installs where a server lacks one.

Source: the package lists of Debian and of apt.postgresql.org.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["packages_of"]

# Where the package is not simply called like the extension.
_PACKAGES = {
    "address_standardizer": "postgis-3",
    "hll": "hll",
    "http": "http",
    "hypopg": "hypopg",
    "ip4r": "ip4r",
    "jsquery": "jsquery",
    "mysql_fdw": "mysql-fdw",
    "ogr_fdw": "ogr-fdw",
    "oracle_fdw": "oracle-fdw",
    "orafce": "orafce",
    "periods": "periods",
    "pg_cron": "cron",
    "pg_partman": "partman",
    "pg_qualstats": "pg-qualstats",
    "pg_rational": "rational",
    "pg_repack": "repack",
    "pg_similarity": "similarity",
    "pg_squeeze": "squeeze",
    "pg_stat_kcache": "pg-stat-kcache",
    "pg_uuidv7": "pg-uuidv7",
    "pg_wait_sampling": "pg-wait-sampling",
    "pgaudit": "pgaudit",
    "pgl_ddl_deploy": "pgl-ddl-deploy",
    "pglogical": "pglogical",
    "pgmp": "pgmp",
    "pgq": "pgq3",
    "pgrouting": "pgrouting",
    "pgsphere": "pgsphere",
    "pgtap": "pgtap",
    "pgvectorscale": "pgvectorscale",
    "pldbgapi": "pldebugger",
    "plperl": "plperl",
    "plperlu": "plperl",
    "plpgsql_check": "plpgsql-check",
    "plpython3u": "plpython3",
    "plr": "plr",
    "pltcl": "pltcl",
    "pltclu": "pltcl",
    "postgis": "postgis-3",
    "postgis_raster": "postgis-3",
    "postgis_sfcgal": "postgis-3",
    "postgis_tiger_geocoder": "postgis-3",
    "postgis_topology": "postgis-3",
    "prefix": "prefix",
    "q3c": "q3c",
    "rdkit": "rdkit",
    "rum": "rum",
    "semver": "semver",
    "set_user": "set-user",
    "tablelog": "tablelog",
    "tdigest": "tdigest",
    "tds_fdw": "tds-fdw",
    "timescaledb": "timescaledb",
    "toastinfo": "toastinfo",
    "unit": "unit",
    "vector": "pgvector",
    "wal2json": "wal2json",
}
# Come with the server itself in Debian, and as postgresql-contrib elsewhere.
_CONTRIB = frozenset({
    "adminpack", "amcheck", "autoinc", "bloom", "bool_plperl", "btree_gin", "btree_gist", "citext", "cube",
    "dblink", "dict_int", "dict_xsyn", "earthdistance", "file_fdw", "fuzzystrmatch", "hstore",
    "hstore_plperl", "insert_username", "intagg", "intarray", "isn", "jsonb_plperl", "lo", "ltree",
    "moddatetime", "old_snapshot", "pageinspect", "pg_buffercache", "pg_freespacemap", "pg_logicalinspect",
    "pg_overexplain", "pg_prewarm", "pg_stat_statements", "pg_surgery", "pg_trgm", "pg_visibility",
    "pg_walinspect", "pgcrypto", "pgrowlocks", "pgstattuple", "postgres_fdw", "refint", "seg", "sslinfo",
    "tablefunc", "tcn", "tsm_system_rows", "tsm_system_time", "unaccent", "uuid-ossp", "xml2",
})  # fmt: skip


def packages_of(extensions: Iterable[str], major: int) -> tuple[str, ...]:
    """Return the Debian packages that hold these extensions for a server of release ``major``, as far as they are known."""
    found: list[str] = []
    for name in extensions:
        if name in _CONTRIB:
            found.append(f"postgresql-{major}")
        elif name in _PACKAGES:
            found.append(f"postgresql-{major}-{_PACKAGES[name]}")
    return tuple(dict.fromkeys(found))
