"""Evidence: controls judged by facts, and bundles of them that can be checked elsewhere with a public key alone.

A *control* is something that has to hold, a *finding* what the facts show of it for one subject (a database, a repository),
a *bundle* the facts, what was concluded from them, and what they were taken from, under one signature.
"""
