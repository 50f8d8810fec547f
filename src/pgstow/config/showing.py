"""The effective settings in the form of the file: every default filled in, every reference as it was written."""

from __future__ import annotations

import io
from typing import Any

from ruamel.yaml import YAML

from pgstow.catalog.assertions import Assertion
from pgstow.config.form import FOREVER
from pgstow.config.references import Reference
from pgstow.config.settings import DatabaseSettings, PlanSettings, RepositorySettings, Settings, Waiver
from pgstow.monitor.policy import AlertPolicy, Contact
from pgstow.retention.policy import DEFAULT_RULES, RetentionPolicy, RetentionRule

__all__ = ["settings_document", "yaml_text"]

_UNITS = ((86400, "d"), (3600, "h"), (60, "m"))


def settings_document(settings: Settings) -> dict[str, Any]:
    """Return the settings as mappings, lists, texts, numbers and flags; reading them gives the same settings again."""
    state = {"state": _reference(settings.state)} if settings.state is not None else {}
    return {
        "time_zone": settings.time_zone,
        **state,
        "databases": {name: _database(each) for name, each in settings.databases.items()},
        "repositories": {name: _repository(each) for name, each in settings.repositories.items()},
        "plans": {name: _plan(each) for name, each in settings.plans.items()},
        "retention": _retention(settings.retention),
        "alerts": _alerts(settings.alerts),
        "contacts": [_contact(each) for each in settings.alerts.contacts],
        "channels": {name: {"url": _reference(each.url)} for name, each in settings.channels.items()},
        "limits": {
            "per_server": settings.limits.per_server,
            "per_repository": settings.limits.per_repository,
            "workers": settings.limits.workers,
        },
        "monitoring": _given(
            listen=settings.monitoring.listen,
            textfile=str(settings.monitoring.textfile) if settings.monitoring.textfile else None,
        ),
        "audit": {"administrators": list(settings.audit.administrators)},
        "waivers": [_waiver(each) for each in settings.waivers],
    }


def yaml_text(document: dict[str, Any]) -> str:
    """Return a document of ``settings_document()`` as YAML that is a settings file again."""
    yaml = YAML(typ="rt", pure=True)
    yaml.width = 10_000  # a folded line is hard to search for
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()


def _given(**values: object) -> dict[str, Any]:
    """Return what is not None."""
    return {key: value for key, value in values.items() if value is not None}


def _reference(reference: Reference) -> str | dict[str, Any]:
    return {"command": list(reference.command)} if reference.command is not None else str(reference)


def _database(database: DatabaseSettings) -> dict[str, Any]:
    return _given(
        url=_reference(database.url),
        password=_reference(database.password) if database.password else None,
        critical=[
            _given(table=f"{each.schema}.{each.name}", time_column=each.time_column)
            for each in database.critical
        ],
        must_contain=list(database.must_contain),
        schemas=list(database.schemas),
        exclude_schemas=list(database.exclude_schemas),
        exclude_tables=list(database.exclude_tables),
        exclude_table_data=list(database.exclude_table_data),
        rpo=_duration(database.rpo_s) if database.rpo_s is not None else None,
        rto=_duration(database.rto_s) if database.rto_s is not None else None,
        jobs=database.jobs,
        limit_rate=database.limit_rate,
        max_blocking=_duration(database.max_blocking_s),
        role_passwords=database.role_passwords,
        full_read_every=database.full_read_every,
        assertions=[_assertion(each) for each in database.assertions],
        optional_extensions=list(database.optional_extensions),
    )


def _assertion(assertion: Assertion) -> dict[str, Any]:
    return _given(
        name=assertion.name,
        sql=assertion.sql,
        equals=assertion.equals,
        null=assertion.is_null or None,
        at_least=str(assertion.at_least) if assertion.at_least is not None else None,
        at_most=str(assertion.at_most) if assertion.at_most is not None else None,
        same_as_backup=assertion.same_as_backup or None,
        severity=assertion.severity,
    )


def _repository(repository: RepositorySettings) -> dict[str, Any]:
    return _given(
        location=repository.location,
        password=_reference(repository.password),
        environment={name: _reference(each) for name, each in repository.environment.items()},
        kinds=list(repository.kinds) if repository.kinds is not None else None,
        quota=repository.quota_bytes,
    )


def _plan(plan: PlanSettings) -> dict[str, Any]:
    schedule = plan.schedule
    timing = (
        {
            "schedule": schedule.cron,
            "time_zone": schedule.time_zone,
            "jitter": _duration(schedule.jitter_s),
            "catch_up": _duration(schedule.catch_up_s),
        }
        if schedule
        else {}
    )
    return _given(
        kind=plan.kind,
        **timing,
        databases=list(plan.databases),
        repositories=list(plan.repositories),
        keep=_rule(plan.keep) if plan.keep else None,
        label=plan.label,
        ping=_reference(plan.ping) if plan.ping else None,
        **(_drill(plan) if plan.job == "drill" else {}),
    )


def _drill(plan: PlanSettings) -> dict[str, Any]:
    drill = plan.drill
    return {
        "strategy": drill.strategy,
        "backup_kind": drill.backup_kind,
        "server": _reference(drill.server) if drill.server else None,
        "password": _reference(drill.password) if drill.password else None,
    }


def _retention(policy: RetentionPolicy) -> dict[str, Any]:
    forever = {kind: FOREVER for kind in DEFAULT_RULES if kind not in policy.rules}
    return {
        "rules": {kind: _rule(rule) for kind, rule in policy.rules.items()} | forever,
        "promotes": policy.promotes,
        "time_zone": policy.time_zone,
    }


def _rule(rule: RetentionRule) -> dict[str, Any]:
    return {"days": f"{rule.days}d", "at_least": rule.at_least}


def _alerts(policy: AlertPolicy) -> dict[str, Any]:
    return {
        "size_change": f"{policy.size_change * 100:.10g}%",
        "size_floor": policy.size_floor_bytes,
        "rows_floor": policy.rows_floor,
        "free_space": f"{policy.free_space * 100:.10g}%",
        "full_within": _duration(policy.full_within_s),
        "grace": _duration(policy.grace_s),
        "catch_up": _duration(policy.catch_up_s),
        "verify_within": _duration(policy.verify_within_s),
        "drill_within": _duration(policy.drill_within_s),
        "canary_within": _duration(policy.canary_within_s),
        "repeat": _duration(policy.repeat_s),
    }


def _contact(contact: Contact) -> dict[str, Any]:
    return _given(
        name=contact.name,
        channels=list(contact.channels),
        after=_duration(contact.after_s),
        phone=contact.phone,
    )


def _waiver(waiver: Waiver) -> dict[str, Any]:
    return {
        "control": waiver.control,
        "until": waiver.until.isoformat(),
        "reason": waiver.reason,
        "by": waiver.by,
    }


def _duration(seconds: float) -> str:
    """Return seconds with the largest unit that divides them, such as ``6h``."""
    for unit_s, letter in _UNITS:
        if seconds and seconds % unit_s == 0:
            return f"{int(seconds // unit_s)}{letter}"
    return f"{seconds:.10g}s"
