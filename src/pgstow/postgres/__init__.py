"""PostgreSQL as pgstow meets it: connections, catalogs, row streams, client tools, archives, servers.

A *session* is one connection with settings of our own; an *exported snapshot* (pg_export_snapshot) is
what lets several sessions see one moment. All SQL on a protected database is a named function here.
"""
