"""The audit trail: who did what with a repository, in chains of signed entries that show when one was touched.

Reads and writes ``pgstow/audit/`` of a repository; what use cases record is in ``app``.
"""
