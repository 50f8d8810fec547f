"""What backups exist, as the repository itself tells it.

A *backup* is a catalogued recovery source: one repository snapshot that pgstow published, identified by
the UUID in its ``run=`` tag and manifest, never by the snapshot id (restic's own commands change that).
A *manifest* is the backup's own account of what it holds and how it was made.
"""
