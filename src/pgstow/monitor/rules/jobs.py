"""Rules about the jobs beside backups: retention and verification, and about the history that tells of them."""

from __future__ import annotations

from datetime import datetime, timedelta

from pgstow.monitor.facts import Facts, PlanFacts
from pgstow.monitor.findings import Finding, Severity, fingerprint
from pgstow.monitor.rules.common import Judgement, everything_of, lasting, moment
from pgstow.state.runs import RunRecord

__all__ = ["history_unreadable", "retention_failed", "verify_failed"]

_FAILED = ("failed", "abandoned", "interrupted", "partial")
_WHY = {"abandoned": "its host died", "interrupted": "it was interrupted"}


def history_unreadable(facts: Facts) -> Judgement:
    """The history of runs cannot be read: what only it tells is unknown."""
    if facts.runs is None:
        why = facts.runs_error.message if facts.runs_error is not None else "it was not looked at"
        yield Finding(
            rule="history_unreadable",
            subject="state",
            severity=Severity.CRITICAL,
            message=f"the history of runs cannot be read, so failed runs, retention and verification cannot be told: {why}",
            hint="look at the state database; backups go on without it",
        )


def retention_failed(facts: Facts) -> Judgement:
    """The newest retention run of a plan failed, or the planned one did not happen."""
    yield from _runs_of(facts, "retention", "nothing is expired meanwhile, and the store fills up")


def verify_failed(facts: Facts) -> Judgement:
    """The newest verification of a plan failed or did not happen; or a repository was not verified for too long."""
    yield from _runs_of(facts, "verify", "the backups there may be damaged")
    for name in facts.repositories:
        if facts.runs is None:
            yield fingerprint("verify_overdue", name)
            continue
        newest = max((run.finished or run.started for run in _verified(facts, name)), default=None)
        began = newest or facts.known_since.get(f"repository {name}")
        if began is None or facts.now - began > timedelta(seconds=facts.policy.verify_within_s):
            yield _overdue(name, newest, facts)


def _overdue(repository: str, newest: datetime | None, facts: Facts) -> Finding:
    last = (
        "is not known to have ever been verified" if newest is None else f"was last verified {moment(newest)}"
    )
    return Finding(
        rule="verify_overdue",
        subject=repository,
        severity=Severity.WARNING,
        message=f"the repository {repository} {last}; at most {lasting(facts.policy.verify_within_s)} may pass",
        hint="a plan of the kind verify does it regularly: pgstow run PLAN",
        since=newest,
    )


def _verified(facts: Facts, repository: str) -> list[RunRecord]:
    plans = {plan.plan: plan.repositories for plan in facts.plans if plan.job == "verify"}
    return [
        run
        for run in facts.runs or ()
        if run.job == "verify"
        and run.outcome == "done"
        and repository in ([each.repository for each in run.destinations] or plans.get(run.plan or "", ()))
    ]


def _runs_of(facts: Facts, job: str, consequence: str) -> Judgement:
    if facts.runs is None:
        yield everything_of(f"{job}_failed")
        yield everything_of(f"{job}_missing")
        return
    for plan in facts.plans:
        if plan.job != job:
            continue
        runs = [
            run
            for run in facts.runs
            if run.job == job and run.plan == plan.plan and run.outcome not in ("running", "missed")
        ]
        if runs and runs[0].outcome in _FAILED:
            yield _failed(plan, runs[0], consequence)
        if plan.expected_since is not None and not any(
            run.outcome == "done" and run.started >= plan.expected_since for run in runs
        ):
            yield from _missing(facts, plan, runs, consequence)


def _failed(plan: PlanFacts, run: RunRecord, consequence: str) -> Finding:
    reason = run.error or _WHY.get(run.outcome, "it did not say why")
    return Finding(
        rule=f"{plan.job}_failed",
        subject=plan.plan,
        severity=Severity.CRITICAL if plan.job == "verify" else Severity.WARNING,
        message=f"{plan.plan} ({plan.job}) {'was done in part' if run.outcome == 'partial' else 'failed'} on {run.host}: "
        f"{reason}; {consequence}",
        hint="pgstow repo check says what is damaged"
        if plan.job == "verify"
        else f"pgstow retention plan shows what would expire; pgstow run {plan.plan} tries again",
        since=run.finished or run.started,
        facts={"run": run.id, "error_code": run.error_code},
    )


def _missing(facts: Facts, plan: PlanFacts, runs: list[RunRecord], consequence: str) -> Judgement:
    assert plan.expected_since is not None
    if runs and runs[0].started >= plan.expected_since:
        return  # it ran and failed, which is told already
    if not runs and plan.expected_since < facts.known_since.get(f"plan {plan.plan}", plan.expected_since):
        return  # the plan is newer than its last due time
    yield Finding(
        rule=f"{plan.job}_missing",
        subject=plan.plan,
        severity=Severity.WARNING,
        message=f"{plan.plan} ({plan.job}) was due {moment(plan.expected_since)} and did not run; {consequence}",
        hint=f"pgstow run {plan.plan}; look whether the service, or cron, is alive",
        since=plan.expected_since,
    )
