"""From the form to the frozen settings: names completed, defaults of the file applied, paths made absolute."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from pgstow.config.assertions import assertions_of
from pgstow.config.form import (
    AlertsForm,
    ContactForm,
    DatabaseForm,
    PlanForm,
    RawReference,
    RepositoryForm,
    RetentionForm,
    RuleForm,
    SettingsForm,
)
from pgstow.config.meaning import DRILL, JOBS, Meaning
from pgstow.config.references import Reference
from pgstow.config.settings import (
    AuditSettings,
    ChannelSettings,
    CriticalTable,
    DatabaseSettings,
    DrillSettings,
    Limits,
    MonitoringSettings,
    PlanSettings,
    RepositorySettings,
    Settings,
    Waiver,
)
from pgstow.monitor.policy import AlertPolicy, Contact
from pgstow.retention.policy import DEFAULT_RULES, RetentionPolicy, RetentionRule

__all__ = ["settings_of"]

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")


def settings_of(meaning: Meaning, path: Path) -> Settings:
    """Return the settings that a form without problems stands for; ``path`` is where the file is."""
    form, folder = meaning.form, path.absolute().parent
    channels = {
        name: ChannelSettings(name=name, url=_reference(each.url, f"channels.{name}.url", folder))
        for name, each in form.channels.items()
    }
    return Settings(
        path=path,
        databases=MappingProxyType(
            {name: _database(name, each, folder) for name, each in form.databases.items()}
        ),
        repositories=MappingProxyType(
            {name: _repository(name, each, folder) for name, each in form.repositories.items()}
        ),
        plans=MappingProxyType(
            {name: _plan(name, each, meaning, folder) for name, each in form.plans.items()}
        ),
        retention=_retention(form, meaning),
        alerts=_alerts(form.alerts, form.contacts),
        channels=MappingProxyType(channels),
        limits=Limits(
            per_server=form.limits.per_server,
            per_repository=form.limits.per_repository,
            workers=form.limits.workers,
        ),
        monitoring=MonitoringSettings(
            listen=form.monitoring.listen,
            textfile=folder / form.monitoring.textfile if form.monitoring.textfile else None,
        ),
        audit=AuditSettings(administrators=tuple(form.audit.administrators)),
        waivers=tuple(
            Waiver(control=each.control, until=each.until, reason=each.reason, by=each.by)
            for each in form.waivers
        ),
        state=_reference(form.state, "state", folder) if form.state else None,
        time_zone=form.time_zone,
    )


def _reference(raw: RawReference, where: str, folder: Path) -> Reference:
    return Reference(
        where=where, text=raw.text, file=folder / raw.file if raw.file else None, command=raw.command
    )


def _database(name: str, form: DatabaseForm, folder: Path) -> DatabaseSettings:
    at = f"databases.{name}"
    return DatabaseSettings(
        name=name,
        url=_reference(form.url, f"{at}.url", folder),
        password=_reference(form.password, f"{at}.password", folder) if form.password else None,
        critical=tuple(
            CriticalTable(
                schema=each.table.partition(".")[0],
                name=each.table.partition(".")[2],
                time_column=each.time_column,
            )
            for each in form.critical
        ),
        must_contain=tuple(form.must_contain),
        schemas=tuple(form.schemas),
        exclude_schemas=tuple(form.exclude_schemas),
        exclude_tables=tuple(form.exclude_tables),
        exclude_table_data=tuple(form.exclude_table_data),
        rpo_s=form.rpo,
        rto_s=form.rto,
        jobs=form.jobs,
        limit_rate=form.limit_rate,
        max_blocking_s=form.max_blocking,
        role_passwords=form.role_passwords,
        full_read_every=form.full_read_every,
        assertions=assertions_of(form.assertions),
        optional_extensions=tuple(form.optional_extensions),
    )


def _repository(name: str, form: RepositoryForm, folder: Path) -> RepositorySettings:
    at = f"repositories.{name}"
    environment: Mapping[str, Reference] = {
        variable: _reference(each, f"{at}.environment.{variable}", folder)
        for variable, each in form.environment.items()
    }
    return RepositorySettings(
        name=name,
        location=_location(form.location, folder),
        password=_reference(form.password, f"{at}.password", folder),
        environment=MappingProxyType(dict(environment)),
        kinds=tuple(form.kinds) if form.kinds is not None else None,
        quota_bytes=form.quota,
    )


def _location(text: str, folder: Path) -> str:
    """Return a location; a folder that is relative to the file becomes absolute."""
    is_elsewhere = _SCHEME.match(text) or text.startswith(("/", "~"))
    return text if is_elsewhere else str(folder / text)


def _plan(name: str, form: PlanForm, meaning: Meaning, folder: Path) -> PlanSettings:
    kind, subject = meaning.kind_of(name, form), meaning.subject_of(name, form)
    return PlanSettings(
        name=name,
        kind=kind,
        databases=tuple(form.databases or meaning.suited_to(subject)),
        repositories=tuple(form.repositories or meaning.taken_by(subject)),
        schedule=meaning.schedule_of(form),
        keep=_rule(form.keep) if form.keep else None,
        label=form.label,
        ping=_reference(form.ping, f"plans.{name}.ping", folder) if form.ping else None,
        drill=_drill(name, form, folder) if kind == DRILL else DrillSettings(),
    )


def _drill(name: str, form: PlanForm, folder: Path) -> DrillSettings:
    at, defaults = f"plans.{name}", DrillSettings()
    return DrillSettings(
        strategy=form.strategy or defaults.strategy,
        backup_kind=form.backup_kind,
        server=_reference(form.server, f"{at}.server", folder) if form.server else None,
        password=_reference(form.password, f"{at}.password", folder) if form.password else None,
    )


def _retention(form: SettingsForm, meaning: Meaning) -> RetentionPolicy:
    """Return the policy: the usual rules, those of the file over them, and those that plans state of their kind."""
    given: RetentionForm = form.retention
    rules = dict(DEFAULT_RULES)
    for kind, rule in given.rules.items():
        if rule is None:
            rules.pop(kind, None)
        else:
            rules[kind] = _rule(rule)
    for name, plan in form.plans.items():
        kind = meaning.kind_of(name, plan)
        if plan.keep is not None and kind not in JOBS:
            rules[kind] = _rule(plan.keep)
    return RetentionPolicy(
        rules=MappingProxyType(rules), promotes=given.promotes, time_zone=given.time_zone or form.time_zone
    )


def _rule(form: RuleForm) -> RetentionRule:
    return RetentionRule(days=form.days, at_least=form.at_least)


def _alerts(form: AlertsForm, contacts: list[ContactForm]) -> AlertPolicy:
    return AlertPolicy(
        size_change=form.size_change,
        size_floor_bytes=form.size_floor,
        rows_floor=form.rows_floor,
        free_space=form.free_space,
        full_within_s=form.full_within,
        grace_s=form.grace,
        catch_up_s=form.catch_up,
        verify_within_s=form.verify_within,
        drill_within_s=form.drill_within,
        canary_within_s=form.canary_within,
        repeat_s=form.repeat,
        contacts=tuple(
            Contact(name=each.name, channels=tuple(each.channels), after_s=each.after, phone=each.phone)
            for each in contacts
        ),
    )
