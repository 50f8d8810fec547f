"""What can be wrong with a bundle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["BundleProblem", "BundleProblemKind"]

# extra, missing, edited: a file is not as the manifest says. unreadable: it is not what its name says. signature, unsigned: of
# the manifest. unenrolled: no word of this administrator stands for a key. judgement: the report does not follow from the
# facts. facts: they do not follow from drills or audit entries. drill, audit: these are not whole or not genuine.
BundleProblemKind = Literal[
    "extra",
    "missing",
    "edited",
    "unreadable",
    "unsigned",
    "signature",
    "unenrolled",
    "judgement",
    "facts",
    "audit",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleProblem:
    """Something that is not as it was made, or not shown to be. ``subject`` is a file, a control, a drill or a chain."""

    kind: BundleProblemKind
    subject: str
    message: str
