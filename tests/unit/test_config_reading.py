"""Reading a settings file: what it says, and every error with its place and the nearest word."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise, takewhile
from pathlib import Path

import pytest
from pydantic import BaseModel

from pgstow.config.finding import find_settings_file
from pgstow.config.first_file import DatabaseLook, first_file
from pgstow.config.reading import read_settings
from pgstow.config.settings import (
    CriticalTable,
    DatabaseSettings,
    Limits,
    MonitoringSettings,
    Settings,
    Waiver,
)
from pgstow.config.validation import FORMS
from pgstow.core.errors import ConfigInvalid, UsageError
from pgstow.jobs.schedule import Schedule, due_times
from pgstow.monitor.policy import AlertPolicy
from pgstow.retention.policy import DEFAULT_RULES, RetentionPolicy, RetentionRule
from support.settings_files import EXAMPLES, SMALL, look, reference_text, told


def test_a_place_that_this_user_may_not_enter_has_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """sudo and su may keep another user's HOME."""

    def refuse(_path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", refuse)
    assert find_settings_file(None, {"HOME": "/root"}) is None


def settings_of(text: str) -> Settings:
    settings = look(text).settings
    assert settings is not None, look(text).errors
    return settings


def changed(old: str, new: str) -> str:
    assert old in SMALL
    return SMALL.replace(old, new, 1)


def test_defaults_of_the_form_are_those_of_the_settings() -> None:
    """They are written down twice, since the file's units differ."""
    settings = settings_of(SMALL)
    shop = settings.databases["shop"]
    assert replace(settings.alerts, contacts=()) == AlertPolicy()
    assert shop == DatabaseSettings(name="shop", url=shop.url, critical=shop.critical)
    assert (settings.limits, settings.monitoring) == (Limits(), MonitoringSettings())
    assert settings.retention == RetentionPolicy()


def test_names_are_completed_and_defaults_applied() -> None:
    settings = settings_of(SMALL)
    assert settings.plans["daily"].repositories == ("local", "offsite")
    assert settings.plans["critical"].repositories == ("local",)
    assert settings.plans["critical"].databases == ("shop",)
    assert settings.plans["retention"].job == "retention"
    assert settings.plans["retention"].repositories == ("local", "offsite")
    assert settings.plans["daily"].schedule == Schedule(cron="0 2 * * *", time_zone="UTC")
    assert settings.databases["shop"].critical == (CriticalTable(schema="public", name="ledger"),)
    assert settings.repositories["local"].password.file == Path("/etc/pgstow/password")
    assert settings.retention.rules == DEFAULT_RULES
    assert [each.where for each in settings.references()] == [
        "databases.shop.url",
        "repositories.local.password",
        "repositories.offsite.password",
        "channels.slack.url",
    ]


def test_the_whole_form() -> None:
    settings = settings_of(reference_text())
    shop, offsite = settings.databases["shop"], settings.repositories["offsite"]
    assert shop.must_contain == ("auth.users", "storage.*")
    assert (shop.rpo_s, shop.limit_rate, shop.max_blocking_s) == (26 * 3600, 50 * 1024**2, 30)
    assert offsite.password.command == ("pass", "show", "backups/offsite")
    assert str(offsite.environment["AWS_REGION"]) == "eu-central-1"
    assert settings.repositories["local"].quota_bytes == 500 * 1024**3
    assert settings.plans["daily"].schedule == Schedule(
        cron="0 2 * * *", time_zone="Europe/Berlin", jitter_s=300, catch_up_s=6 * 3600
    )
    rule = RetentionRule(days=400, at_least=4)
    assert settings.plans["quarterly"].keep == settings.retention.rules["quarterly"] == rule
    assert "annual" not in settings.retention.rules
    assert settings.retention.rules["critical"] == RetentionRule(days=7)
    assert settings.alerts.size_change == 0.2
    assert [contact.after_s for contact in settings.alerts.contacts] == [0, 3600]
    assert str(settings.state) == "postgresql://pgstow@db.example/pgstow_state"
    drill = settings.plans["drill"]
    assert (drill.job, drill.databases, drill.drill.strategy) == ("drill", ("shop",), "rotate")
    assert drill.repositories == ("local", "offsite")
    assert str(drill.drill.server) == "postgresql://drill@spare.example/postgres"
    assert [str(each.where) for each in settings.references()][-4:-2] == [
        "plans.drill.server",
        "plans.drill.password",
    ]
    assert settings.waivers == (
        Waiver(
            control="C7",
            until=date(2026, 12, 31),
            reason="the second region is ordered",
            by="head of engineering",
        ),
    )


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_examples_are_right_and_nothing_in_them_is_doubtful(path: Path) -> None:
    reading = look(path.read_text())
    assert (reading.errors, reading.warnings) == ((), ())
    settings = reading.settings
    assert settings is not None
    kinds = {plan.kind for plan in settings.plans.values()}
    assert kinds >= {*DEFAULT_RULES, "retention", "verify", "drill"}
    (database,) = settings.databases.values()
    assert "auth.users" in database.must_contain
    assert len(database.critical) == 2


@pytest.mark.parametrize(
    "text",
    [
        *(path.read_text() for path in EXAMPLES),
        reference_text(),
        first_file(DatabaseLook(name="shop", tables=(), is_supabase=False), location="/srv/backups").text,
    ],
    ids=[*(path.parent.name for path in EXAMPLES), "configuration.md", "wizard"],
)
def test_drills_that_are_shown_are_frequent_enough(text: str) -> None:
    """Who copies a plan is not to be told that drills are missing, and each kind in each repository is to have its turn in a year."""
    settings = settings_of(text)
    (plan,) = [plan for plan in settings.plans.values() if plan.job == "drill"]
    assert plan.schedule is not None
    begin = datetime(2027, 1, 1, tzinfo=UTC)
    dues = list(takewhile(lambda due: due < begin + timedelta(days=365), due_times(plan.schedule, begin)))
    longest = max(later - earlier for earlier, later in pairwise(dues))
    late = timedelta(seconds=plan.schedule.jitter_s) + timedelta(days=1)  # and the time that a drill takes
    assert longest + late < timedelta(seconds=settings.alerts.drill_within_s)
    backups = [each for each in settings.plans.values() if each.job == "backup" and each.schedule is not None]
    assert len({(each.kind, name) for each in backups for name in each.repositories}) <= len(dues)


def test_there_are_examples() -> None:
    assert [path.parent.name for path in EXAMPLES] == ["marketplace-supabase", "reconciliation-docker"]


def test_relative_paths_begin_at_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    file = folder / "pgstow.yaml"
    file.write_text(changed("/srv/backups", "../backups") + "monitoring: {textfile: m.prom}\n")
    settings = read_settings(file)
    assert settings.repositories["local"].location == f"{folder}/../backups"
    assert settings.repositories["local"].password.file == folder / "password"
    assert settings.monitoring.textfile == folder / "m.prom"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        # -- names of keys
        ("critical: [ledger]", "critcal: [ledger]", '4:5: databases.shop.critcal: unknown key; did you mean "critical"?'),
        ("schedule: 0 2", "cron: 0 2", '15:5: plans.daily.cron: unknown key; did you mean "schedule"?'),
        ("contacts:", "contatcs:", '20:1: contatcs: unknown key; did you mean "contacts"?'),
        ("kinds: [daily]", "limits: {workers: 1}", 'unknown key here; "limits" belongs at the top of the file'),
        ("kinds: [daily]", "zzz: 1", "12:5: repositories.offsite.zzz: unknown key; known here: location, password,"),
        ("    password: file:password\n", "", '6:3: repositories.local: missing key "password"'),
        ("databases:", "database:", '1:1: missing key "databases"'),
        # -- names of things
        ("schedule: 0 2 * * *", "databases: [shpo]", '15:17: plans.daily.databases[0]: there is no database "shpo"; did you'),
        ("schedule: 0 2 * * *", "repositories: [ofsite]", 'no repository "ofsite"; did you mean "offsite"?'),
        ("channels: [slack]", "channels: [slakc]", '22:16: contacts[0].channels[0]: there is no channel "slakc"; did you'),
        ("schedule: 0 2 * * *", "databases: [shop, shop]", "plans.daily.databases[1]: is there twice"),
        ("schedule: 0 2 * * *", "databases: []", "plans.daily.databases: is empty"),
        ("schedule: 0 2 * * *", "repositories: []", "plans.daily.repositories: is empty"),
        ("  shop:", "  my shop:", "cannot be a name"),
        # -- kinds
        ("daily:\n", "dayly:\n", 'plans.dayly: missing key "kind": the name of the plan is no kind; did you mean "daily"?'),
        ("schedule: 0 2 * * *", "kind: anual", '"anual" is no kind of backup; did you mean "annual"?'),
        ("kinds: [daily]", "kinds: [dialy]", '12:13: repositories.offsite.kinds[0]: "dialy" is no kind of backup; did you'),
        ("schedule: 0 */6 * * *", "repositories: [offsite]", "offsite takes no backups of kind critical"),
        ("password: file:password", "password: file:password\n    kinds: [dr]", "plans.critical: no repository takes backups"),
        ("critical: [ledger]", "jobs: 3", "plans.critical: no database has critical tables"),
        ("    critical: [ledger]\n", "", "plans.critical: no database has critical tables"),
        ("retention: {}", "retention: {keep: 7d}", "plans.retention.keep: a plan of kind retention makes no backups"),
        ("retention: {}", "retention: {jitter: 5m}", "plans.retention.jitter: means nothing without a schedule"),
        # -- drills
        ("schedule: 0 2 * * *", "strategy: latest", "15:5: plans.daily.strategy: a plan of kind daily makes no drills"),
        ("retention: {}", "retention: {server: service=spare}", "18:15: plans.retention.server: a plan of kind retention makes no drills"),
        ("drill: {}", "drill: {strategy: newest}", "19:21: plans.drill.strategy: is no way to choose a backup: rotate, latest, random, oldest"),
        ("drill: {}", "drill: {strategy: rotat}", 'did you mean "rotate"?'),
        ("drill: {}", "drill: {backup_kind: dialy}", '19:24: plans.drill.backup_kind: no plan makes backups of kind "dialy"; did you mean "daily"?'),
        ("drill: {}", "drill: {backup_kind: annual}", 'no plan makes backups of kind "annual"; plans make: daily, critical'),
        ("drill: {}", "drill: {backup_kind: verify}", 'no plan makes backups of kind "verify"'),
        ("drill: {}", "drill: {backup_kind: critical, repositories: [offsite]}", "offsite takes no backups of kind critical"),
        ("drill: {}", "drill: {password: file:x}", "19:11: plans.drill.password: means nothing without a server"),
        ("drill: {}", "drill: {keep: 7d}", "plans.drill.keep: a plan of kind drill makes no backups"),
        ("drill: {}", "drill: {server: 'postgresql://a:secretpw@db/x'}", "19:19: plans.drill.server: the connection string holds a password"),
        ("channels:\n  slack", "retention: {rules: {drill: 7d}}\nchannels:\n  slack", "drill is a kind of plan, not of backups"),
        ("critical: [ledger]", "optional_extensions: [pg_cron, pg_cron]", "4:36: databases.shop.optional_extensions[1]: is there twice"),
        # -- waivers
        ("channels:\n  slack", "waivers: [{control: C23, until: 2026-12-31, reason: x, by: y}]\nchannels:\n  slack", "23:21: waivers[0].control: is no control: C1 to C22"),
        ("channels:\n  slack", "waivers: [{control: C7, until: 31.12.2026, reason: x, by: y}]\nchannels:\n  slack", "23:32: waivers[0].until: is not a day"),
        ("channels:\n  slack", "waivers: [{control: C7, until: 2026-02-30, reason: x, by: y}]\nchannels:\n  slack", "waivers[0].until: is not a day"),
        ("channels:\n  slack", "waivers: [{control: C7, until: 2026-12-31, by: y}]\nchannels:\n  slack", 'waivers[0]: missing key "reason"'),
        ("channels:\n  slack", "waivers: [{control: C7, until: 2026-12-31, reason: x, by: y}, {control: c7, until: 2026-12-31, reason: x, by: y}]\nchannels:\n  slack", "waivers[1].control: is there twice"),
        # -- retention
        ("channels:\n  slack", "retention: {rules: {dialy: 7d}}\nchannels:\n  slack", 'rules.dialy: no plan makes backups of this kind; did you mean "daily"?'),
        ("channels:\n  slack", "retention: {rules: {verify: 7d}}\nchannels:\n  slack", "verify is a kind of plan, not of backups"),
        ("channels:\n  slack", "retention: {rules: {daily: 7 weeks}}\nchannels:\n  slack", "is not a number of days"),
        ("channels:\n  slack", "retention: {rules: {daily: 0d}}\nchannels:\n  slack", "is not a number of days"),
        ("channels:\n  slack", "retention: {rules: {daily: {days: 3, at_least: -1}}}\nchannels:\n  slack", "is not a whole number"),
        ("schedule: 0 2 * * *", "keep: forevr", "plans.daily.keep: is not a number of days"),
        # -- times
        ("0 2 * * *", "0 25 * * *", "15:15: plans.daily.schedule: is not a cron expression: bad hour"),
        ("0 2 * * *", "0 2 * *", "is not a cron expression: five fields"),
        ("0 2 * * *", "0 0 2 * * *", "is not a cron expression: five fields"),
        ("0 2 * * *", "0 2 30 2 *", "is not a cron expression: bad day-of-month"),
        ("0 2 * * *", "0 2 * * 1#9", "is not a cron expression: bad day-of-week"),
        ("0 2 * * *", "0 2 * * *\n    time_zone: Europe/Berln", 'no time zone: IANA names, as in Europe/Berlin; did you mean "Europe/Berlin"?'),
        ("0 2 * * *", "0 2 * * *\n    catch_up: 6", "16:15: plans.daily.catch_up: a duration needs its unit"),
        ("0 2 * * *", "0 2 * * *\n    catch_up: 6 hours", "is not a duration: write it like"),
        # -- values
        ("critical: [ledger]", "critical: ledger", "expected a list: write [FIRST, SECOND]"),
        ("critical: [ledger]", "critical: [[ledger]]", "expected one value, not a list"),
        ("critical: [ledger]", "critical: ['\"Ledger\"']", "write the name as the catalog has it, without quotes"),
        ("critical: [ledger]", "critical: [ledger, public.ledger]", "databases.shop.critical[1]: is there twice"),
        ("critical: [ledger]", "critical: [public.*]", "must be one table"),
        ("critical: [ledger]", "must_contain: [auth.u*]", "there are no other patterns"),
        ("critical: [ledger]", "critical: [ledger]\n    exclude_tables: [public.ledger]", "this is excluded from every backup"),
        ("critical: [ledger]", "critical: [ledger]\n    exclude_schemas: [public]", "this is excluded from every backup"),
        ("critical: [ledger]", "critical: [ledger]\n    exclude_table_data: [public.ledger]", "the rows of this table are excluded"),
        ("critical: [ledger]", "role_passwords: yes", "write true or false (yes, no, on and off are only words)"),
        ("critical: [ledger]", "jobs: 0", "must be at least 1"),
        ("critical: [ledger]", "jobs: 02", "is not a whole number"),
        ("critical: [ledger]", "limit_rate: fast", "is not a size"),
        ("s3://bucket/pgstow", "ftp://bucket/x", "is no repository location"),
        ("s3://bucket/pgstow", "/srv/backups/", "repositories.offsite.location: the same place as repositories.local"),
        ("${OFFSITE_PASSWORD}", "${OFFSITE-PASSWORD}", "a variable is written ${NAME}"),
        ("${OFFSITE_PASSWORD}", "file:~/x", "with a path that is absolute or relative to this file"),
        ("${OFFSITE_PASSWORD}", "{comand: [x]}", 'unknown key "comand"; did you mean "command"?'),
        ("${OFFSITE_PASSWORD}", "{command: x}", "command is a list, a program and its arguments"),
        ("postgresql://backup@db.example/shop", "https://db.example/shop", "is no connection string"),
        ("channels:\n  slack", "monitoring: {listen: '9187'}\nchannels:\n  slack", "is not an address: HOST:PORT"),
        ("channels:\n  slack", "alerts: {size_change: 0.2}\nchannels:\n  slack", "is not a share: write it like 20%"),
        ("channels:\n  slack", "alerts: {size_change: 120%}\nchannels:\n  slack", "is not a share"),
        ("kinds: [daily]", "environment: {aws-region: x}", "12:19: repositories.offsite.environment.aws-region: is no name of a variable"),
        ("channels:\n  slack", "state: sqlite:///x\nchannels:\n  slack", "23:8: state: is no address of a PostgreSQL database"),
        ("channels:\n  slack", "state: host=x\nchannels:\n  slack", "state: is no address of a PostgreSQL database"),
        ("channels: [slack]", "channels: []", "contacts[0].channels: needs at least one item"),
    ],
)  # fmt: skip
def test_errors(old: str, new: str, expected: str) -> None:
    errors = told(changed(old, new))
    assert any(expected in error for error in errors), errors


def test_every_error_is_told_at_once_and_in_order() -> None:
    text = changed("0 2 * * *", "61 * * * *").replace("[slack]", "[slakc]").replace("file:password", "plain")
    assert [error.partition(": ")[0] for error in told(text)] == ["8:15", "15:15", "22:16"]


def test_escalation_goes_forward_only() -> None:
    contacts = "  - name: boss\n    channels: [slack]\n    after: 1h\n  - {name: aide, channels: [slack], after: 5m}\n"
    errors = told(SMALL.replace("channels:\n  slack", contacts + "channels:\n  slack"))
    assert errors == [
        "26:44: contacts[2].after: is sooner than a contact above: order them as they are called"
    ]


def test_two_rules_for_one_kind() -> None:
    two = "schedule: 0 2 * * *\n    keep: 7d\n  nightly: {kind: daily, keep: 8d}"
    assert told(changed("schedule: 0 2 * * *", two)) == [
        "17:32: plans.nightly.keep: plans.daily.keep says otherwise of the same kind"
    ]
    assert told(changed("schedule: 0 2 * * *", two.replace("8d", "7d"))) == []
    rule = "retention: {rules: {daily: 9d}}\nchannels:\n  slack"
    assert (
        "retention.rules.daily says otherwise of the same kind"
        in told(changed("schedule: 0 2 * * *", "keep: 7d").replace("channels:\n  slack", rule))[0]
    )


def test_drills_of_one_kind_are_for_the_databases_and_repositories_that_have_it() -> None:
    text = changed("drill: {}", "drill: {backup_kind: critical}").replace(
        "  shop:", "  other: {url: service=other}\n  shop:", 1
    )
    drill = settings_of(text).plans["drill"]
    assert (drill.databases, drill.repositories) == (("shop",), ("local",))
    assert settings_of(text.replace("backup_kind: critical", "")).plans["drill"].databases == (
        "other",
        "shop",
    )


def test_own_kind_by_a_rule() -> None:
    text = changed("retention: {}", "half-yearly: {}") + "retention: {rules: {half-yearly: forever}}\n"
    assert "half-yearly" not in settings_of(text).retention.rules


def test_what_is_allowed_and_probably_not_meant() -> None:
    def warned(text: str) -> list[str]:
        return [problem.text("f")[2:] for problem in look(text).warnings]

    assert warned(SMALL) == []
    assert warned(changed("retention: {}\n", "monthly: {}\n")) == [
        "13:1: plans: no plan of kind retention: nothing expires by itself"
    ]
    assert warned(changed("drill: {}\n", "monthly: {}\n")) == [
        "13:1: plans: no plan of kind drill: that backups can be restored is never tried"
    ]
    monthly = 'drill: {schedule: "0 9 1 * *"}\n'
    assert warned(changed("drill: {}\n", monthly)) == [
        "19:11: plans.drill.schedule: drills of shop are up to 31 days apart, and alerts.drill_within is 30 days"
    ], "there would be an alarm at the end of every long month"
    leap_days = 'drill: {schedule: "0 9 29 2 *"}\n'
    assert "drills of shop are more than a year apart" in warned(changed("drill: {}\n", leap_days))[0]
    for often in ("0 9 1,15 * *", "0 * * * *"):
        assert warned(changed("drill: {}\n", f'drill: {{schedule: "{often}"}}\n')) == []
    own_server = "drill: {server: postgresql://backup@db.example/shop}\n"
    assert warned(changed("drill: {}\n", own_server)) == [
        "19:11: plans.drill.server: drills would load the server that databases.shop is on"
    ]
    assert warned(changed("  shop:", "  other: {url: service=other}\n  shop:")) == []
    only = changed("0 2 * * *", "0 2 * * *\n    databases: [shop]\n    repositories: [local]")
    assert warned(only.replace("  shop:", "  other: {url: service=other}\n  shop:", 1)) == [
        "2:3: databases.other: no plan backs up this database",
        "10:3: repositories.offsite: no plan puts backups into this repository",
    ]
    assert warned(changed("${SLACK_URL}\n", "${SLACK_URL}\n  mail: ${MAIL}\n")) == [
        "25:3: channels.mail: no contact uses this channel"
    ]
    assert "nobody is told" in warned(SMALL.partition("contacts:")[0])[0]
    assert "nothing runs by itself" in warned(SMALL.partition("plans:")[0])[0]
    assert (
        "can feign success" in warned(changed("0 2 * * *", "0 2 * * *\n    ping: https://hc-ping.com/1"))[0]
    )
    late = warned(changed("channels: [slack]", "channels: [slack]\n    after: 1h"))
    assert late == ["23:5: contacts[0].after: nobody is told of an alert before this"]


def test_errors_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_settings(tmp_path / "nothing.yaml")
    file = tmp_path / "pgstow.yaml"
    file.write_text(changed("0 2 * * *", "61 * * * *").replace("[slack]", "[slakc]"))
    with pytest.raises(ConfigInvalid) as caught:
        read_settings(file)
    assert caught.value.exit_code == 2
    assert str(caught.value).startswith(f"{file} has 2 errors:\n{file}:15:15: plans.daily.schedule: is not")
    problems = caught.value.facts["problems"]
    assert isinstance(problems, list)
    assert len(problems) == 2


def test_every_form_has_its_place() -> None:
    """``FORMS`` names every form there is, so that each typo is told with the words of its own form."""
    reached = set(FORMS.values())
    for form in list(reached):
        for field in form.model_fields.values():
            assert forms_in(field.annotation) <= reached, form


def forms_in(annotation: object) -> set[type[BaseModel]]:
    """Return the forms that a type is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    return {form for each in getattr(annotation, "__args__", ()) for form in forms_in(each)} | {
        form for each in (getattr(annotation, "__origin__", None),) if each for form in forms_in(each)
    }
