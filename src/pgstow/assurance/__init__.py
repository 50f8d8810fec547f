"""Proof: that a backup can be read back, and that what was restored is what was saved.

To *verify* a repository is to find every byte of it sound; to *compare* two databases is to find their
contents equal. Neither trusts an exit status.
"""
