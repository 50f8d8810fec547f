"""Looking after a repository: what removes, moves or mends what is stored.

*Pruning* removes what no snapshot needs; *copying* brings backups into another repository; *repairing* drops what is
lost, so that the rest is whole again.
"""
