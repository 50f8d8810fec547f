"""``pgstow audit anchor``"""

from __future__ import annotations

from datetime import UTC, datetime

from rich.text import Text

from pgstow.app.audit import anchor_now
from pgstow.app.auditing import journal_of
from pgstow.audit.documents import heads_document
from pgstow.cli.command import Invocation
from pgstow.cli.formats import plural, time_text
from pgstow.cli.output import Outcome

__all__ = ["audit_anchor_command"]


def audit_anchor_command(invocation: Invocation) -> Outcome:
    """Write down the newest entry of every chain, in the repository and on standard output.

    Every host does the first by itself once a day. What --json prints is for a place that whoever can write to the
    repository cannot change: audit verify --anchors holds the trail against it.
    """
    with invocation.output.progress() as progress:
        written = anchor_now(
            invocation.repository(progress),
            journal_of(invocation.environ),
            invocation.environ,
            now=datetime.now(UTC),
        )
    anchor, until = written.signed.anchor, written.locked_until
    locked = f"locked in the bucket until {time_text(until)} UTC" if until else "the store does not lock it"
    return Outcome(
        document={
            "repository": anchor.repository,
            "time": anchor.at.isoformat(),
            "heads": heads_document(anchor.heads),
            "locked_until": until.isoformat() if until else None,
        },
        view=[
            *(Text(f"{head.chain} {head.number} {head.digest}") for head in anchor.heads),
            Text(f"anchored {plural(len(anchor.heads), 'chain')}; {locked}"),
        ],
    )
