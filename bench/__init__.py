"""The numbers of pgstow, measured beside its peers: ``python -m bench``.

Not part of the installed package. Its terms:

- contestant: one tool used in one way to back up and restore, pgstow among them
- case: one question asked of several contestants (``backup``, ``restore``, ``changes``, ``distance``...)
- run: one round through the contestants of a case; rounds alternate, so that a machine that slows down
  slows everybody
- measurement: what one command cost: wall clock, processor time of the tool and of the server, peak memory
- target: a ratio of medians, or a peak, that pgstow promises to stay under
"""

__all__: list[str] = []
