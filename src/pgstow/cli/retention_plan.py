"""``pgstow retention plan``"""

from __future__ import annotations

from pgstow.app.retention import RetentionRequest, plan_retention_only
from pgstow.cli.command import Invocation
from pgstow.cli.durations import parse_duration
from pgstow.cli.output import Outcome
from pgstow.cli.retention_options import (
    DatabaseOption,
    KeepOption,
    NoPromoteOption,
    TimeZoneOption,
    WaitOption,
    policies_from,
)
from pgstow.cli.retention_view import plan_document, plan_view

__all__ = ["retention_plan_command"]


def retention_plan_command(
    invocation: Invocation,
    keep: KeepOption = None,
    time_zone: TimeZoneOption = "UTC",
    no_promote: NoPromoteOption = False,
    database: DatabaseOption = None,
    wait: WaitOption = "0",
) -> Outcome:
    """Say of each backup whether it is kept or expires, and every reason why. Changes nothing.

    Without other rules: critical 7 days, daily 30, weekly 90, monthly 365, annual 7 years, pre-deployment and dr 365;
    every other kind never expires.
    """
    policies = policies_from(keep, time_zone, no_promote=no_promote)
    wait_s = parse_duration(wait)
    with invocation.output.progress() as progress:
        plan = plan_retention_only(
            invocation.repository(progress),
            RetentionRequest(policy=policies, name=database),
            progress,
            wait_s=wait_s,
        )
    return Outcome(document={"plan": plan_document(plan)}, view=list(plan_view(plan)))
