"""Use cases: what the command line, and later a service, ask pgstow to do.

Everything from outside is handed in (stores, tools, clocks, names of users); nothing here reads the
environment, prints, or exits.
"""
