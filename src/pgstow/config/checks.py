"""What a settings file must make sense of beyond the form of each value: names that exist, kinds that fit, rules that hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pgstow.config.assertion_form import note_contradictions
from pgstow.config.document import Document
from pgstow.config.form import DatabaseForm, PlanForm, RuleForm, SettingsForm
from pgstow.config.meaning import CRITICAL, DRILL, JOBS, Meaning
from pgstow.config.oversights import note_oversights, warn
from pgstow.config.plain_secrets import environment_problem
from pgstow.config.problems import Path, nearest, quoted
from pgstow.retention.policy import DEFAULT_RULES

__all__ = ["Checks"]

_OF_DRILLS = ("strategy", "backup_kind", "server", "password")  # keys of plans
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Checks:
    """Each check notes the problems it finds in the document."""

    meaning: Meaning

    @property
    def document(self) -> Document:
        return self.meaning.document

    @property
    def form(self) -> SettingsForm:
        return self.meaning.form

    def run(self) -> None:
        """Do all checks."""
        self._sections()
        for name, database in self.form.databases.items():
            self._database(name, database)
        self._repositories()
        for name, plan in self.form.plans.items():
            self._plan(name, plan)
        self._rules()
        self._contacts()
        self._twice([waiver.control for waiver in self.form.waivers], ("waivers",), "control")
        note_oversights(self.meaning)

    # -- sections

    def _sections(self) -> None:
        for section in ("databases", "repositories"):
            if not self.document.root.get(section) and (section,) not in self.document.valueless:
                self.document.add(
                    (section,),
                    f'missing key "{section}"' if section not in self.document.root else "is empty",
                    shown=() if section not in self.document.root else (section,),
                )

    def _repositories(self) -> None:
        places: dict[str, str] = {}
        for name, repository in self.form.repositories.items():
            at: Path = ("repositories", name)
            place = repository.location.removeprefix("file://").rstrip("/") or "/"
            if place in places:
                self.document.add((*at, "location"), f"the same place as repositories.{places[place]}")
            places.setdefault(place, name)
            for index, kind in enumerate(repository.kinds or ()):
                self._known_kind(kind, (*at, "kinds", index))
            for variable, value in repository.environment.items():
                here = (*at, "environment", variable)
                if not _VARIABLE_NAME.fullmatch(variable):
                    self.document.add(here, "is no name of a variable: letters, digits and _", at_key=True)
                if value.text is not None and (message := environment_problem(variable, value.text)):
                    self.document.add(here, message)

    def _database(self, name: str, database: DatabaseForm) -> None:
        at: Path = ("databases", name)
        critical = [each.table for each in database.critical]
        self._twice(critical, (*at, "critical"))
        self._twice(database.must_contain, (*at, "must_contain"))
        for key, tables in (("critical", critical), ("must_contain", database.must_contain)):
            for index, table in enumerate(tables):
                schema = table.partition(".")[0]
                if table in database.exclude_tables or schema in database.exclude_schemas:
                    self.document.add((*at, key, index), "this is excluded from every backup of the database")
                elif key == "critical" and table in database.exclude_table_data:
                    self.document.add(
                        (*at, key, index), "the rows of this table are excluded from every backup"
                    )
        self._twice(database.optional_extensions, (*at, "optional_extensions"))
        note_contradictions(self.document, (*at, "assertions"), database.assertions)

    def _twice(self, words: Sequence[str], at: Path, *key: str) -> None:
        for index, word in enumerate(words):
            if word in words[:index]:
                self.document.add((*at, index, *key), "is there twice")

    # -- plans

    def _plan(self, name: str, plan: PlanForm) -> None:
        at: Path = ("plans", name)
        kind = self.meaning.kind_of(name, plan)
        if plan.kind is None and (*at, "kind") in self.document.places:
            return  # the kind was given, and is wrong
        if kind not in JOBS and not self._known_kind(kind, (*at, "kind"), is_name=plan.kind is None):
            return
        self._exist(plan.databases, (*at, "databases"), self.meaning.names("databases"), "database")
        self._exist(
            plan.repositories, (*at, "repositories"), self.meaning.names("repositories"), "repository"
        )
        subject = self.meaning.subject_of(name, plan)
        self._destinations(plan, subject, at)
        self._subjects(plan, subject, at)
        self._drill(plan, kind, at)
        if kind in JOBS:
            for key in ("keep", "label"):
                if getattr(plan, key) is not None:
                    self.document.add((*at, key), f"a plan of kind {kind} makes no backups", at_key=True)
        if plan.schedule is None:
            for key in ("jitter", "catch_up", "time_zone"):
                if getattr(plan, key) is not None:
                    self.document.add((*at, key), "means nothing without a schedule", at_key=True)

    def _drill(self, plan: PlanForm, kind: str, at: Path) -> None:
        if kind != DRILL:
            for key in _OF_DRILLS:
                if getattr(plan, key) is not None:
                    message = f"a plan of kind {kind} makes no drills: only plans of kind {DRILL} take this"
                    self.document.add((*at, key), message, at_key=True)
            return
        made = self.meaning.kinds_made()
        if plan.backup_kind is not None and made is not None and plan.backup_kind not in made:
            guess = nearest(plan.backup_kind, made) or f"; plans make: {', '.join(made) or 'none'}"
            message = f"no plan makes backups of kind {quoted(plan.backup_kind)}{guess}"
            self.document.add((*at, "backup_kind"), message)
        if plan.password is not None and plan.server is None:
            self.document.add((*at, "password"), "means nothing without a server", at_key=True)
        for name, database in self.form.databases.items():
            if plan.server is not None and plan.server == database.url:
                warn(
                    self.document,
                    (*at, "server"),
                    f"drills would load the server that databases.{name} is on",
                )

    def _destinations(self, plan: PlanForm, kind: str, at: Path) -> None:
        taking = self.meaning.taken_by(kind)
        are_whole = len(self.form.repositories) == len(self.meaning.names("repositories"))
        if plan.repositories is None and not taking and self.form.repositories and are_whole:
            self.document.add(at, f"no repository takes backups of kind {kind}", at_key=True)
        for index, name in enumerate(plan.repositories or ()):
            if name in self.form.repositories and name not in taking:
                self.document.add(
                    (*at, "repositories", index),
                    f"{name} takes no backups of kind {kind}: add it to repositories.{name}.kinds",
                )
        if plan.repositories == []:
            self.document.add((*at, "repositories"), "is empty: name repositories, or remove the key for all")

    def _subjects(self, plan: PlanForm, kind: str, at: Path) -> None:
        if plan.databases == []:
            self.document.add((*at, "databases"), "is empty: name databases, or remove the key for all")
        if kind != CRITICAL or any(
            (*each, "critical") in self.document.places for each in self._without_critical()
        ):
            return
        if plan.databases is None and self.form.databases and not self.meaning.suited_to(kind):
            self.document.add(
                at, "no database has critical tables: name them under databases.NAME.critical", at_key=True
            )
        for index, name in enumerate(plan.databases or ()):
            database = self.form.databases.get(name)
            if database is not None and not database.critical:
                self.document.add(
                    (*at, "databases", index),
                    f"{name} has no critical tables: name them under databases.{name}.critical",
                )

    def _without_critical(self) -> list[Path]:
        return [("databases", name) for name, each in self.form.databases.items() if not each.critical]

    def _known_kind(self, kind: str, at: Path, *, is_name: bool = False) -> bool:
        kinds = self.meaning.backup_kinds()
        if kind in kinds:
            return True
        choice = [*kinds, *JOBS] if at[0] == "plans" else kinds
        guess = nearest(kind, choice) or f"; known: {', '.join(choice)}"
        if is_name:
            message = f'missing key "kind": the name of the plan is no kind{guess}'
            self.document.add(at[:-1], message, at_key=True, shown=at[:-1])
        else:
            message = f"{quoted(kind)} is no kind of backup{guess}"
            self.document.add(at, f"{message} (a kind of your own needs a rule under retention.rules)")
        return False

    def _exist(self, names: Iterable[str] | None, at: Path, known: Sequence[str], what: str) -> None:
        given = list(names or ())
        for index, name in enumerate(given):
            if name not in known:
                self.document.add((*at, index), f"there is no {what} {quoted(name)}{nearest(name, known)}")
        self._twice(given, at)

    # -- retention

    def _rules(self) -> None:
        made = {self.meaning.kind_of(name, plan) for name, plan in self.form.plans.items()}
        made |= {kind for each in self.form.repositories.values() for kind in each.kinds or ()}
        plans_are_whole = len(self.form.plans) == len(self.meaning.names("plans"))
        for kind in self.form.retention.rules:
            at: Path = ("retention", "rules", kind)
            if kind in JOBS:
                self.document.add(at, f"{kind} is a kind of plan, not of backups", at_key=True)
            elif kind not in DEFAULT_RULES and kind not in made and plans_are_whole:
                guess = nearest(kind, [*DEFAULT_RULES, *made])
                self.document.add(at, f"no plan makes backups of this kind{guess}", at_key=True)
        kept: dict[str, tuple[str, RuleForm]] = {}
        for name, plan in self.form.plans.items():
            if plan.keep is None:
                continue
            kind = self.meaning.kind_of(name, plan)
            other = kept.setdefault(kind, (f"plans.{name}.keep", plan.keep))
            if kind in self.form.retention.rules and self.form.retention.rules[kind] != plan.keep:
                other = (f"retention.rules.{kind}", plan.keep)
            elif other[1] == plan.keep:
                continue
            self.document.add(("plans", name, "keep"), f"{other[0]} says otherwise of the same kind")

    # -- alerts

    def _contacts(self) -> None:
        channels = self.meaning.names("channels")
        longest = 0.0
        self._twice([contact.name for contact in self.form.contacts], ("contacts",))
        for index, contact in enumerate(self.form.contacts):
            at: Path = ("contacts", index)
            self._exist(contact.channels, (*at, "channels"), channels, "channel")
            if contact.after < longest:
                self.document.add(
                    (*at, "after"), "is sooner than a contact above: order them as they are called"
                )
            longest = max(longest, contact.after)
        if self.form.contacts and self.form.contacts[0].after > 0:
            warn(self.document, ("contacts", 0, "after"), "nobody is told of an alert before this")
