"""The audit trail: who did what with a repository, in chains of signed entries that show when one was touched.

An *entry* tells of one access. The entries of one host are a *chain*: each is signed with the host's key and names the one
before it. A *head* is the newest entry of a chain that somebody saw; a head that is written down where the chain's owner
cannot change it is an *anchor*. *Pending* entries are kept on a host until a repository takes them.

Reads and writes ``pgstow/audit/`` of a repository; what use cases record is in ``app``.
"""
