"""Making a logical backup: pg_dump's table of contents, rows read by us, one consistent moment.

The *leader* is the session that holds every table lock and exports the snapshot; *workers* are sessions
that join it and read tables. A *range* is a run of heap pages whose rows form blobs of their own, so that
unchanged pages give unchanged blobs.
"""
