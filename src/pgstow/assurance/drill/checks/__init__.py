"""What is checked of a restored database, one idea per module.

A check gets the *restored* database and a session, and gives records: one that sums up, and one for each thing that is not as
it must be. Nothing in the database is trusted: the search path is empty, names are quoted by the server, and no function
of the database is called but what a person's own assertions call.
"""
