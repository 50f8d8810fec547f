"""The form of the settings file: which keys there are, and what each takes.

pydantic reads it here and nowhere else; ``conversion`` turns it into the frozen settings at once. The descriptions are those of
the JSON Schema that editors show.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    InstanceOf,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema

from pgstow.config import plain_secrets
from pgstow.config.assertion_form import AssertionForm
from pgstow.config.problems import nearest, quoted
from pgstow.config.values import (
    DAYS_SCHEMA,
    Address,
    Control,
    Count,
    Cron,
    Day,
    Days,
    Duration,
    Fingerprint,
    Flag,
    Label,
    Location,
    Name,
    Positive,
    Share,
    Size,
    Strategy,
    TableName,
    TablePattern,
    Text,
    ZoneName,
    refuse,
)

__all__ = [
    "FOREVER",
    "AlertsForm",
    "AuditForm",
    "ContactForm",
    "DatabaseForm",
    "MonitoringForm",
    "PlanForm",
    "RawReference",
    "RepositoryForm",
    "RetentionForm",
    "RuleForm",
    "SettingsForm",
    "WaiverForm",
]

FOREVER = "forever"  # instead of a rule: backups of that kind never expire


@dataclass(frozen=True, slots=True, kw_only=True)
class RawReference:
    """A reference to a secret as it was written; for ``file`` the path is still as it was written too."""

    text: str | None = None
    file: str | None = None
    command: tuple[str, ...] | None = None


_REFERENCE_SCHEMA: dict[str, Any] = {
    "oneOf": [
        {"type": "string", "minLength": 1},
        {
            "type": "object",
            "properties": {"command": {"type": "array", "items": {"type": "string"}, "minItems": 1}},
            "required": ["command"],
            "additionalProperties": False,
        },
    ]
}


def _raw_reference(value: object) -> RawReference:
    if isinstance(value, dict):
        return RawReference(command=_command(value))
    if not isinstance(value, str):
        refuse(f"expected a value: {plain_secrets.REMEDY}")
    text = value.strip()
    if not text or any(ord(char) < 32 or ord(char) == 127 for char in text):
        refuse("is empty or holds line breaks or control characters")
    if text.startswith("file:") and not text.startswith("file://"):
        path = text.removeprefix("file:").strip()
        if not path or path.startswith("~"):
            refuse("write file:PATH, with a path that is absolute or relative to this file")
        return RawReference(file=path)
    if "${" in plain_secrets.without_variables(text):
        refuse("a variable is written ${NAME}: letters, digits and _")
    return RawReference(text=text)


def _command(value: dict[str, object]) -> tuple[str, ...]:
    for key in value:
        if key != "command":
            refuse(f"unknown key {quoted(key)}{nearest(key, ['command'])}: {plain_secrets.REMEDY}")
    words = value.get("command")
    if not isinstance(words, list) or not words or not all(isinstance(word, str) and word for word in words):
        refuse("command is a list, a program and its arguments: command: [PROGRAM, ARGUMENT]")
    return tuple(words)


def _reference(problem: Callable[[str], str | None]) -> BeforeValidator:
    def check(value: object) -> RawReference:
        raw = _raw_reference(value)
        if raw.text is not None and (message := problem(raw.text)):
            refuse(message)
        return raw

    return BeforeValidator(check)


class _Short:
    """Lets a value that is no mapping of this form stand for the mapping with only the key ``key``."""

    def __init__(self, key: str, schema: dict[str, Any], *others: dict[str, Any]) -> None:
        self._key, self._schemas = key, [schema, *others]

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._expand, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [*self._schemas, handler(schema)]}

    def _expand(self, value: object) -> object:
        return value if isinstance(value, dict) and not _is_command(value) else {self._key: value}


class _Forever(_Short):
    """A short rule that may also be the word ``forever``."""

    def _expand(self, value: object) -> object:
        return None if value == FOREVER else super()._expand(value)


def _is_command(value: dict[str, object]) -> bool:
    return set(value) == {"command"}


_SCHEMA = WithJsonSchema(_REFERENCE_SCHEMA)
PasswordReference = Annotated[InstanceOf[RawReference], _reference(plain_secrets.password_problem), _SCHEMA]
ConnectionReference = Annotated[
    InstanceOf[RawReference], _reference(plain_secrets.connection_problem), _SCHEMA
]
StateReference = Annotated[InstanceOf[RawReference], _reference(plain_secrets.state_problem), _SCHEMA]
ChannelReference = Annotated[InstanceOf[RawReference], _reference(plain_secrets.channel_problem), _SCHEMA]
PingReference = Annotated[InstanceOf[RawReference], _reference(plain_secrets.ping_problem), _SCHEMA]
PlainReference = Annotated[InstanceOf[RawReference], _reference(lambda _text: None), _SCHEMA]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class CriticalForm(_Form):
    table: TableName = Field(description="SCHEMA.TABLE, or a table of the schema public.")
    time_column: Text | None = Field(
        None,
        description="The column that says when a row was made or changed; its newest value shows how fresh a backup is.",
    )


class DatabaseForm(_Form):
    url: ConnectionReference = Field(
        description="Where the database is: postgresql://..., key=value pairs or service=NAME, without a password."
    )
    password: PasswordReference | None = Field(
        None, description="The password, where pgpass or a service file does not give it."
    )
    critical: list[Annotated[CriticalForm, _Short("table", {"type": "string"})]] = Field(
        [], description="Tables whose loss of an hour matters: what plans of kind critical back up."
    )
    must_contain: list[TablePattern] = Field(
        [], description="SCHEMA.TABLE or SCHEMA.*: a backup without one of these has failed."
    )
    schemas: list[Text] = Field(
        [], description="Only these schemas (pg_dump's patterns); backups are partial then."
    )
    exclude_schemas: list[Text] = Field([], description="Not these schemas.")
    exclude_tables: list[Text] = Field([], description="Not these tables.")
    exclude_table_data: list[Text] = Field([], description="These tables without their rows.")
    rpo: Duration | None = Field(
        None, description="How much may be lost, as time: how old the newest backup may get."
    )
    rto: Duration | None = Field(None, description="How long a restore may take.")
    jobs: Positive = Field(2, description="Connections that read rows.")
    limit_rate: Size | None = Field(None, description="At most so many bytes a second, such as 20M.")
    max_blocking: Duration = Field(
        30.0, description="Step aside when others wait this long for a lock of a backup; 0: never."
    )
    role_passwords: Flag = Field(False, description="Save the password hashes of roles too.")
    full_read_every: Positive = Field(7, description="Read everything in every Nth backup.")
    assertions: list[AssertionForm] = Field(
        [], description="What must be true of the database; drills check it of what they restored."
    )
    optional_extensions: list[Text] = Field(
        [], description="Extensions that the place of a drill may lack; what needs them is then left out."
    )


class RepositoryForm(_Form):
    location: Location = Field(
        description="A folder, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX."
    )
    password: PasswordReference = Field(description="The password that opens the repository.")
    environment: dict[Text, PlainReference] = Field(
        {}, description="Variables for the store: credentials, region, endpoint."
    )
    kinds: list[Name] | None = Field(
        None, description="Only backups of these kinds go here; without it, all."
    )
    quota: Size | None = Field(None, description="What the bucket or disk may hold, such as 500G.")


class RuleForm(_Form):
    days: Days = Field(description="Calendar days for which backups are kept, such as 30d.")
    at_least: Count = Field(1, description="So many are kept however old they are.")


Rule = Annotated[RuleForm, _Short("days", DAYS_SCHEMA)]


class PlanForm(_Form):
    kind: Name | None = Field(
        None, description="What the backups are, or retention, verify or drill; without it the plan's name."
    )
    schedule: Cron | None = Field(None, description="Cron expression; without it the plan runs on demand.")
    time_zone: ZoneName | None = Field(None, description="Of the schedule; without it that of the file.")
    jitter: Duration | None = Field(None, description="A delay of up to so long, the same for every host.")
    catch_up: Duration | None = Field(
        None, description="How late a run that was missed is still made up for."
    )
    databases: list[Name] | None = Field(
        None, description="Names of databases; without it, all that the kind suits."
    )
    repositories: list[Name] | None = Field(
        None, description="Names of repositories; without it, all that take the kind."
    )
    keep: Rule | None = Field(None, description="How long backups of this kind are kept.")
    label: Label | None = Field(None, description="A note on every backup of the plan.")
    ping: PingReference | None = Field(
        None,
        description="URL of a dead man's switch (healthchecks.io protocol) that is told of begin, success and failure.",
    )
    strategy: Strategy | None = Field(
        None,
        description="Of drills: rotate (what was proven longest ago, the default), latest, random or oldest.",
    )
    backup_kind: Name | None = Field(None, description="Of drills: only backups of this kind.")
    server: ConnectionReference | None = Field(
        None,
        description="Of drills: a server to restore on, in a database of its own; without it a throwaway one of this machine.",
    )
    password: PasswordReference | None = Field(None, description="Of drills: the password for the server.")


class RetentionForm(_Form):
    rules: dict[
        Name,
        Annotated[RuleForm | None, _Forever("days", DAYS_SCHEMA, {"const": FOREVER})],
    ] = Field(
        {}, description="How long backups are kept, by kind: 30d, {days: 30d, at_least: 7}, or forever."
    )
    promotes: Flag = Field(True, description="A daily backup also stands for its week, month and year.")
    time_zone: ZoneName | None = Field(
        None, description="In which days, weeks and months are counted; without it that of the file."
    )


class AlertsForm(_Form):
    size_change: Share = Field(0.2, description="A change of size by this share is told.")
    size_floor: Size = Field(10 * 1024 * 1024, description="Smaller changes than this are never told.")
    rows_floor: Count = Field(
        1000, description="Nor are fewer rows than this, of a table that is not critical."
    )
    free_space: Share = Field(0.1, description="Less room than this share of a disk or quota is told.")
    full_within: Duration = Field(
        14 * 86400.0, description="A store that is forecast to be full sooner is told."
    )
    grace: Duration = Field(3600.0, description="How late a backup may be before it is told.")
    catch_up: Duration = Field(
        86400.0, description="How long a repository may lack a backup that another has."
    )
    verify_within: Duration = Field(
        35 * 86400.0, description="How long ago a repository may have been verified."
    )
    drill_within: Duration = Field(
        30 * 86400.0, description="How long ago a backup of a database may have last passed a drill."
    )
    canary_within: Duration = Field(
        7 * 86400.0, description="How long ago a test message of a channel may have been acknowledged."
    )
    repeat: Duration = Field(86400.0, description="After how long an open alert is told again.")


class ContactForm(_Form):
    name: Text = Field(description="Who it is.")
    channels: list[Name] = Field(min_length=1, description="Names of channels.")
    after: Duration = Field(0.0, description="Is told when nobody acknowledged an alert for so long.")
    phone: Text | None = Field(None, description="Shown in alerts.")


class ChannelForm(_Form):
    url: ChannelReference = Field(description="apprise URL, such as slack://, mailtos:// or jsons://.")


class LimitsForm(_Form):
    per_server: Positive = Field(1, description="Backups of one server at the same time.")
    per_repository: Positive = Field(4, description="Runs that write to one repository at the same time.")
    workers: Positive = Field(2, description="Runs of one pgstow serve at the same time.")


class MonitoringForm(_Form):
    listen: Address | None = Field(None, description="HOST:PORT on which pgstow serve gives metrics.")
    textfile: Text | None = Field(None, description="File of metrics for the node exporter.")


class AuditForm(_Form):
    administrators: list[Fingerprint] = Field(
        [], description="Fingerprints of the administrators whose enrolments of hosts count."
    )


class WaiverForm(_Form):
    control: Control = Field(description="C1 to C22: the control that is known not to hold.")
    until: Day = Field(description="The last day on which that is accepted, as 2026-12-31.")
    reason: Text = Field(description="Why it is accepted.")
    by: Text = Field(description="Who decided that.")


class SettingsForm(_Form):
    """Settings of pgstow."""

    databases: dict[Name, DatabaseForm] = Field({}, description="What to protect, by name.")
    repositories: dict[Name, RepositoryForm] = Field({}, description="Where backups go, by name.")
    plans: dict[Name, PlanForm] = Field({}, description="What runs when, by name.")
    retention: RetentionForm = Field(RetentionForm(), description="How long backups are kept.")
    alerts: AlertsForm = Field(AlertsForm(), description="What counts as wrong.")
    contacts: list[ContactForm] = Field([], description="Who is told, in this order.")
    channels: dict[Name, Annotated[ChannelForm, _Short("url", _REFERENCE_SCHEMA)]] = Field(
        {}, description="Ways to tell somebody, by name."
    )
    limits: LimitsForm = Field(LimitsForm(), description="How much runs at the same time.")
    monitoring: MonitoringForm = Field(MonitoringForm(), description="Where metrics are given.")
    audit: AuditForm = Field(AuditForm(), description="Whose word on the keys of hosts counts.")
    waivers: list[WaiverForm] = Field([], description="Controls that need not hold for a while, and why.")
    state: StateReference | None = Field(
        None,
        description="postgresql://... of the state database that several hosts share; without it a file on this machine.",
    )
    time_zone: ZoneName = Field("UTC", description="Of schedules and retention that name none.")
