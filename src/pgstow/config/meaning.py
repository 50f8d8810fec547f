"""What names and keys of a settings file mean where they are left out: which kind a plan has, what it is about, what there is."""

from __future__ import annotations

from dataclasses import dataclass

from pgstow.config.document import Document, Value
from pgstow.config.form import PlanForm, SettingsForm
from pgstow.jobs.schedule import Schedule
from pgstow.retention.policy import DEFAULT_RULES

__all__ = ["CRITICAL", "DRILL", "JOBS", "Meaning"]

DRILL = "drill"
JOBS = ("retention", "verify", DRILL)  # kinds of plans that are no backups
CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Meaning:
    """Asked by who checks a file, and by who makes settings of it. Entries that are wrong are in the document alone."""

    document: Document
    form: SettingsForm

    def names(self, *section: str) -> list[str]:
        """Return the names in a section as they stand in the file, also of entries that are wrong."""
        found: Value = self.document.root
        for part in section:
            found = found.get(part) if isinstance(found, dict) else None
        return list(found) if isinstance(found, dict) else []

    def kind_of(self, name: str, plan: PlanForm) -> str:
        return plan.kind or name

    def subject_of(self, name: str, plan: PlanForm) -> str:
        """Return what a plan is about: its kind, or that of the backups which its drills are to restore."""
        kind = self.kind_of(name, plan)
        return plan.backup_kind if kind == DRILL and plan.backup_kind else kind

    def backup_kinds(self) -> list[str]:
        """Return the kinds of backups there are: the usual ones and those that a rule declares."""
        declared = [*self.names("retention", "rules")]
        declared += [
            self.kind_of(name, plan) for name, plan in self.form.plans.items() if plan.keep is not None
        ]
        return list(dict.fromkeys([*DEFAULT_RULES, *(kind for kind in declared if kind not in JOBS)]))

    def schedule_of(self, plan: PlanForm) -> Schedule | None:
        """Return when a plan runs, with the file's defaults; None: on demand."""
        if not plan.schedule:
            return None
        defaults = Schedule(cron="")
        return Schedule(
            cron=plan.schedule,
            time_zone=plan.time_zone or self.form.time_zone,
            jitter_s=defaults.jitter_s if plan.jitter is None else plan.jitter,
            catch_up_s=defaults.catch_up_s if plan.catch_up is None else plan.catch_up,
        )

    def taken_by(self, kind: str) -> list[str]:
        """Return the repositories that take backups of a kind; all of them for a job that is no backup."""
        return [
            name
            for name, repository in self.form.repositories.items()
            if kind in JOBS or repository.kinds is None or kind in repository.kinds
        ]

    def suited_to(self, kind: str) -> list[str]:
        """Return the databases that a plan of this kind is for where it names none."""
        return [
            name for name, database in self.form.databases.items() if kind != CRITICAL or database.critical
        ]

    def kinds_made(self) -> list[str] | None:
        """Return the kinds of backups that plans make; None where not every plan could be read."""
        plans = self.form.plans
        if len(plans) < len(self.names("plans")):
            return None
        kinds = (self.kind_of(name, plan) for name, plan in plans.items())
        return list(dict.fromkeys(kind for kind in kinds if kind not in JOBS))
