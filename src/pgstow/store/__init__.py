"""Object stores: named, immutable-by-convention byte strings in a folder, a bucket or memory.

An *object* has a *name* (relative, ``/``-separated, validated by ``check_name``), bytes, and a time of
last modification by the store's own clock. Nothing in here knows what the objects mean.
"""
