"""``pgstow init``"""

from __future__ import annotations

from rich.text import Text

from pgstow.app.init import init_repository
from pgstow.cli.command import Invocation
from pgstow.cli.formats import safe
from pgstow.cli.output import Outcome

__all__ = ["init_command"]


def init_command(invocation: Invocation) -> Outcome:
    """Make a repository: an encrypted one in restic's format, which restic can read too.

    Without its password nobody can read it, so keep the password in two places.
    """
    location = invocation.require_location()
    password = invocation.password()
    report = init_repository(
        location,
        password,
        invocation.environ,
        hostname=invocation.hostname,
        username=invocation.username,
        on_retry=invocation.output.note,
    )
    return Outcome(
        document={"repository": {"id": report.repository_id, "location": report.location}},
        view=[
            Text(f"made repository {report.repository_id[:10]} at {safe(report.location)}"),
            Text("keep its password safe: without it the backups cannot be read by anyone", style="dim"),
        ],
    )
