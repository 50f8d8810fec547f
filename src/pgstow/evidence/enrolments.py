"""For which keys of hosts an administrator's word stands, by what he signed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pgstow.audit.documents import ENROLMENT, Enrolment, parse_enrolment
from pgstow.audit.keys import Signed, fingerprint

__all__ = ["Enrolled", "enrolled_by"]


@dataclass(slots=True)
class Enrolled:
    """Keys by their fingerprints, which are the names of chains. ``refused``: statements that do not count, and why."""

    enrolled: dict[str, Enrolment] = field(default_factory=dict)
    revoked: dict[str, Enrolment] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)

    def is_good(self, chain: str) -> bool:
        """Whether the administrator said that this is the key of a host, and has not taken it back."""
        return chain in self.enrolled and chain not in self.revoked


def enrolled_by(documents: Iterable[bytes], administrator: str) -> Enrolled:
    """Return what the administrator with this fingerprint says in signed documents."""
    found = Enrolled()
    for raw in documents:
        try:
            signed = Signed.decode(raw)
            enrolment = parse_enrolment(signed.content)
        except (ValueError, RecursionError) as exc:
            found.refused.append(f"a statement cannot be read: {exc}")
            continue
        if not signed.is_genuine(ENROLMENT):
            found.refused.append(f"the signature under the statement about {enrolment.chain[:16]} is wrong")
        elif fingerprint(enrolment.host_key) != enrolment.chain:
            found.refused.append(f"the statement about {enrolment.chain[:16]} names another key")
        elif signed.signer != administrator:
            continue  # another administrator's, whose fingerprint was not given
        elif enrolment.is_revoked:
            found.revoked[enrolment.chain] = enrolment
        else:
            found.enrolled[enrolment.chain] = enrolment
    return found
