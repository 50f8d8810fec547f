"""``pgstow retention plan``"""

from __future__ import annotations

from pgstow.app.retention import plan_retention_only
from pgstow.cli.command import Invocation
from pgstow.cli.output import Outcome
from pgstow.cli.retention_options import (
    DatabaseOption,
    KeepOption,
    NoPromoteOption,
    TimeZoneOption,
    WaitOption,
)
from pgstow.cli.retention_rules import rules_from
from pgstow.cli.retention_view import plan_document, plan_view
from pgstow.core.quantities import parse_duration

__all__ = ["retention_plan_command"]


def retention_plan_command(
    invocation: Invocation,
    keep: KeepOption = None,
    time_zone: TimeZoneOption = None,
    no_promote: NoPromoteOption = False,
    database: DatabaseOption = None,
    wait: WaitOption = "0",
) -> Outcome:
    """Say of each backup whether it is kept or expires, and every reason why. Changes nothing.

    The rules are those of the settings that name this repository, or that --config gives. Without: critical 7 days, daily
    30, weekly 90, monthly 365, annual 7 years, pre-deployment and dr 365; every other kind never expires.
    """
    rules = rules_from(invocation, keep, time_zone, no_promote=no_promote)
    wait_s = parse_duration(wait)
    with invocation.output.progress() as progress:
        plan = plan_retention_only(
            invocation.repository(progress),
            rules.request(invocation, database),
            progress,
            wait_s=wait_s,
        )
    return Outcome(document={"plan": plan_document(plan, rules)}, view=list(plan_view(plan, rules)))
