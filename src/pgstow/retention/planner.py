"""Deciding which backups are kept.

A backup goes when nothing speaks for it. These do, each by itself:

- its own rule, and the rules of the periods it stands for, by calendar days in the policy's time zone. A database ages by its
  own backups: the newest one is its today, so that nothing goes while no new backup arrives, however long that takes and
  wherever a clock jumps;
- a hold, also one that cannot be read: what is not known must not cost a backup;
- the floors: the newest ``at_least`` of each kind, which never count a damaged one as long as there are whole ones; the
  newest whole backup of the database. Partial backups have floors of their own;
- the newest backup that a restore has proven, and any whose proof cannot be read;
- the whole database is frozen: its newest run failed, its newest backup is damaged or doubtful or from the future.

A database that was retired, and has not been backed up since, has no floors, ages by today's date, and is not frozen for what
only a new backup could mend. Its newest proven backup goes last, with the others.

Removing what a plan drops never makes another backup go: every reason of a kept one rests on itself, on backups that are newer
than it and kept, or on being the first of what is there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta

from pgstow.catalog.backups import IMPORT
from pgstow.repository import Hold, Proof, Retirement
from pgstow.retention.facts import Attempt, BackupFacts, RetentionState
from pgstow.retention.periods import promotions
from pgstow.retention.plan import Decision, Reason, ReasonCode, RetentionPlan
from pgstow.retention.policy import RetentionPolicies, RetentionPolicy

__all__ = ["FUTURE_TOLERANCE", "plan_retention"]

FUTURE_TOLERANCE = timedelta(minutes=15)  # the clocks of a server and a store are never quite the same


def plan_retention(state: RetentionState, policies: RetentionPolicies) -> RetentionPlan:
    """Decide about every backup. The same state and policies give the same plan."""
    by_name: defaultdict[str, list[BackupFacts]] = defaultdict(list)
    for backup in sorted(state.backups, key=lambda each: each.order):
        by_name[backup.name].append(backup)
    databases = [_Database(own, policies.of(name), state) for name, own in sorted(by_name.items())]
    return RetentionPlan(
        now=state.now,
        decisions=tuple(decision for database in databases for decision in database.decide()),
        notes=tuple(note for database in databases for note in database.notes()),
    )


class _Database:
    """The backups of one name, oldest first, and what speaks for each."""

    def __init__(
        self, backups: Sequence[BackupFacts], policy: RetentionPolicy, state: RetentionState
    ) -> None:
        self._backups = backups
        self._name = backups[0].name
        self._policy = policy
        self._state = state
        self._zone = policy.zone
        self._today = state.now.astimezone(self._zone).date()
        self._newest = backups[-1]
        self._retired = self._retirement()
        self._reasons: dict[str, list[Reason]] = {backup.id: [] for backup in backups}

    def _retirement(self) -> Retirement | None:
        """Return the mark that the database is gone, unless it was backed up since."""
        retired = self._state.retirements.get(self._name)
        return retired if retired is not None and self._newest.time <= retired.when else None

    def decide(self) -> Iterator[Decision]:
        self._apply_rules()
        self._apply_holds()
        if self._retired is None:
            self._apply_floors()
        self._apply_proofs()
        self._apply_freezes()
        for backup in self._backups:
            yield Decision(backup=backup, reasons=tuple(self._reasons[backup.id]))

    def notes(self) -> Iterator[str]:
        """Yield what a person should know of the database as a whole."""
        retired = self._state.retirements.get(self._name)
        if retired is not None and self._retired is None:
            yield (
                f"{self._name} was retired on {_day_text(retired.when)} and has been backed up since:"
                " that it is gone does not count any more"
            )

    # -- rules

    def _apply_rules(self) -> None:
        periods = promotions(self._backups, self._zone) if self._policy.promotes else {}
        reached = {is_partial: self._age_of(is_partial=is_partial) for is_partial in (False, True)}
        for backup in self._backups:
            today = reached[backup.is_partial]
            self._add_rule(backup, backup.kind, backup.kind, ReasonCode.RULE, today)
            for period in periods.get(backup.id, ()):
                self._add_rule(backup, period.kind, f"first of the {period}", ReasonCode.PROMOTED, today)
            if self._retired is not None:
                self._add(backup, ReasonCode.RETIRED, f"{self._name} {_retired_text(self._retired)}")

    def _age_of(self, *, is_partial: bool) -> date:
        """Return the day that the whole, or the partial, backups have reached; imported ones only where they are alone."""
        alike = [each for each in self._backups if each.is_partial == is_partial]
        own = [each for each in alike if each.kind != IMPORT]
        days = [each.day(self._zone) for each in own or alike]
        if self._retired is not None or not days:
            return self._today
        return min(self._today, days[-1])

    def _add_rule(self, backup: BackupFacts, kind: str, what: str, code: ReasonCode, today: date) -> None:
        rule = self._policy.rules.get(kind)
        for_kind = f", as {kind}" if code is ReasonCode.PROMOTED else ""
        if rule is None:
            self._add(backup, ReasonCode.NO_RULE, f"{what}: {kind} has no rule and never expires")
            return
        until = backup.day(self._zone) + timedelta(days=rule.days)
        days = "1 day" if rule.days == 1 else f"{rule.days} days"
        if today <= until and self._today > until:
            text = f"{what}: its days ended with {until}, but nothing ages without a newer backup of {self._name}"
            self._add(backup, ReasonCode.NOT_AGED, text, until)
        elif today <= until:
            self._add(backup, code, f"{what}: kept for {days}{for_kind}, until {until}", until)
        else:
            text = f"{what}: was kept for {days}{for_kind}, until {until}"
            self._add(backup, ReasonCode.EXPIRED, text, until)

    # -- what people and drills said

    def _apply_holds(self) -> None:
        """Keep what is held. The last day of a hold has to be over for the database too: a clock alone ends none."""
        reached = self._today
        if self._retired is None:
            reached = min(reached, self._newest.day(self._zone))
        for backup in self._backups:
            for hold in self._state.holds.get(backup.id, ()):
                if hold.until is None or reached <= hold.until:
                    self._add(backup, ReasonCode.HELD, _hold_text(hold), hold.until)

    def _apply_proofs(self) -> None:
        proofs: dict[str, Proof] = {}
        for proof in sorted(self._state.proofs, key=lambda each: each.when):
            proofs[proof.backup_id] = proof
        for is_partial in (False, True):
            proven = [b for b in self._backups if b.id in proofs and b.is_partial == is_partial]
            for backup in _newest_ones(proven):
                proof = proofs[backup.id]
                text = f"newest backup of {self._name} proven by a restore ({_day_text(proof.when)}: {proof.what})"
                self._add_proven(backup, text)
        for backup in self._backups:
            if backup.id in self._state.doubtful_proofs:
                self._add_proven(backup, "has a proof that cannot be read, and may be the newest proven one")

    def _add_proven(self, backup: BackupFacts, text: str) -> None:
        others = (each for each in self._backups if each.id != backup.id)
        if self._retired is None or any(self._is_kept(each) for each in others):
            self._add(backup, ReasonCode.PROVEN, text)

    def _is_kept(self, backup: BackupFacts) -> bool:
        return any(reason.code.keeps for reason in self._reasons[backup.id])

    # -- floors

    def _apply_floors(self) -> None:
        groups: defaultdict[tuple[str, bool], list[BackupFacts]] = defaultdict(list)
        for backup in self._backups:
            groups[backup.kind, backup.is_partial].append(backup)
        for (kind, is_partial), members in groups.items():
            rule = self._policy.rules.get(kind)
            count = rule.at_least if rule is not None else 1
            what = f"partial {kind}" if is_partial else kind
            text = f"the newest of kind {what}" if count == 1 else f"one of the newest {count} of kind {what}"
            for backup in _best(members, count):
                self._add(backup, ReasonCode.FLOOR, text)
        whole = [backup for backup in self._backups if backup.is_whole]
        if whole:
            self._add(whole[-1], ReasonCode.LAST_WHOLE, f"the newest whole backup of {self._name}")

    # -- freezes

    def _apply_freezes(self) -> None:
        for code, text in self._freezes():
            for backup in self._backups:
                self._add(backup, code, f"nothing of {self._name} expires: {text}")

    def _freezes(self) -> Iterator[tuple[ReasonCode, str]]:
        newest = self._newest
        if newest.time > self._state.now + FUTURE_TOLERANCE:
            when = f"{newest.time.astimezone(UTC):%Y-%m-%d %H:%M}Z"
            yield (
                ReasonCode.FUTURE,
                f"its newest backup {newest.short_id} is from the future ({when}): is a clock wrong?",
            )
        if self._retired is not None:
            return
        attempt = self._state.attempts.get(self._name)
        if attempt is not None and attempt.has_succeeded is False and not self._is_made_up_for(attempt):
            error = f": {attempt.error}" if attempt.error else ""
            what = f"its newest run of kind {attempt.kind}" if attempt.kind else "its newest run"
            yield ReasonCode.FAILED, f"{what} failed ({_minute_text(attempt.when)}{error})"
        for backup in self._newest_of_both():
            if backup.is_damaged:
                yield ReasonCode.DAMAGED, f"its newest backup {backup.short_id} is damaged"
        if self._name in self._state.doubts:
            yield ReasonCode.DOUBTFUL, self._state.doubts[self._name]

    def _is_made_up_for(self, attempt: Attempt) -> bool:
        return any(attempt.is_made_up_for_by(backup) for backup in self._backups)

    def _newest_of_both(self) -> Iterator[BackupFacts]:
        for is_partial in (False, True):
            yield from [each for each in self._backups if each.is_partial == is_partial][-1:]

    def _add(self, backup: BackupFacts, code: ReasonCode, text: str, until: date | None = None) -> None:
        self._reasons[backup.id].append(Reason(code=code, text=text, until=until))


def _best(members: Sequence[BackupFacts], count: int) -> list[BackupFacts]:
    """Return the newest ``count``: undamaged ones, and damaged ones only where those are too few."""
    return sorted(members, key=lambda each: (not each.is_damaged, each.order))[-count:]


def _newest_ones(proven: Iterable[BackupFacts]) -> list[BackupFacts]:
    """Return the newest, and if that one is damaged the newest undamaged one as well."""
    found = list(proven)
    undamaged = [backup for backup in found if not backup.is_damaged]
    return list({backup.id: backup for backup in [*found[-1:], *undamaged[-1:]]}.values())


def _hold_text(hold: Hold) -> str:
    if hold.problem is not None:
        return f"held: {hold.problem}"
    since = _day_text(hold.since) if hold.since is not None else "an unknown day"
    until = f", until {hold.until}" if hold.until is not None else ""
    return f"held since {since}{until} by {hold.by}: {hold.reason}"


def _retired_text(retired: Retirement) -> str:
    return f"was retired on {_day_text(retired.when)} by {retired.by}: {retired.reason}"


def _day_text(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d}"


def _minute_text(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%MZ}"
