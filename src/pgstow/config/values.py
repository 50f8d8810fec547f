"""The kinds of values a settings file has: each takes the text that was written and returns what it means.

Messages never repeat a text that may be a secret. Every kind also says what it looks like in the JSON Schema for editors.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from functools import cache
from typing import Annotated, Any, Literal, NoReturn
from zoneinfo import available_timezones

from cronsim import CronSim, CronSimError
from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from pgstow.catalog.backups import check_backup_name
from pgstow.config.problems import nearest
from pgstow.core.errors import UsageError
from pgstow.core.quantities import DURATION_HINT, SIZE_HINT, parse_duration, parse_size
from pgstow.store.opening import check_location

__all__ = [
    "DAYS_SCHEMA",
    "Address",
    "Control",
    "Count",
    "Cron",
    "Day",
    "Days",
    "Duration",
    "Fingerprint",
    "Flag",
    "Label",
    "Location",
    "Name",
    "Positive",
    "Share",
    "Size",
    "Strategy",
    "TableName",
    "TablePattern",
    "Text",
    "ZoneName",
    "refuse",
    "zone_names",
]

_NOT_IN_TEXTS = re.compile(r"[\x00-\x1f\x7f]")
_IDENTIFIER_BYTES = 63
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_ADDRESS = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]*):([0-9]{1,5})")
_CRON_FIELD = re.compile(r"[0-9A-Za-z*,/#-]+", re.ASCII)
_CRON_FROM = datetime(2026, 1, 1, tzinfo=UTC)
_MOST_DAYS = 100 * 366
# A number, where a JSON document or an editor takes it for one.
_NUMBER = {"type": "integer", "minimum": 0}


def refuse(message: str) -> NoReturn:
    """Raise what pydantic turns into an error of this value with these words."""
    raise PydanticCustomError("refused", "{message}", {"message": message})


def _text(value: object) -> str:
    if not isinstance(value, str):
        refuse(f"expected one value, not a {'list' if isinstance(value, list) else 'mapping'}")
    if not value.strip():
        refuse("is empty: give a value, or remove the key")
    if _NOT_IN_TEXTS.search(value):
        refuse("cannot hold line breaks, tabs or control characters")
    return value


def _of(convert: Callable[[str], Any]) -> BeforeValidator:
    """Return a validator that applies ``convert`` to a text; its UsageError is told without its words."""
    return BeforeValidator(lambda value: convert(_text(value)))


def _name(text: str) -> str:
    try:
        return check_backup_name(text)
    except UsageError:
        refuse("cannot be a name: use letters, digits, and _ . + - (at most 100)")


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        refuse(
            "write true or false"
            + (" (yes, no, on and off are only words)" if text.lower() in _WORDS else "")
        )
    return text == "true"


_WORDS = ("yes", "no", "on", "off", "y", "n")


def _count(text: str) -> int:
    if not re.fullmatch(r"0|[1-9][0-9]{0,8}", text, re.ASCII):
        refuse("is not a whole number")
    return int(text)


def _positive(text: str) -> int:
    if _count(text) < 1:
        refuse("must be at least 1")
    return int(text)


def _days(text: str) -> int:
    digits = re.fullmatch(r"([0-9]{1,6}) ?d?", text, re.ASCII)
    if not digits or not 1 <= int(digits[1]) <= _MOST_DAYS:
        refuse(f"is not a number of days: write it like 30d (at most {_MOST_DAYS})")
    return int(digits[1])


def _duration(text: str) -> float:
    try:
        seconds = parse_duration(text)
    except UsageError:
        refuse(f"is not a duration: {DURATION_HINT}")
    if seconds and text.strip()[-1].isdigit():
        refuse(f"a duration needs its unit: {DURATION_HINT}")
    return seconds


def _size(text: str) -> int:
    try:
        return parse_size(text.removesuffix("/s"))
    except UsageError:
        refuse(f"is not a size: {SIZE_HINT}")


def _share(text: str) -> float:
    found = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]+)?) ?%", text, re.ASCII)
    if not found or not 0 < float(found[1]) <= 100:
        refuse("is not a share: write it like 20%")
    return float(found[1]) / 100


def _cron(text: str) -> str:
    fields = text.split()
    if text.startswith("@") or len(fields) != 5:
        refuse('is not a cron expression: five fields, minute hour day month weekday, as in "0 2 * * *"')
    if not all(_CRON_FIELD.fullmatch(each) for each in fields):
        refuse("is not a cron expression: a field holds a character that means nothing there")
    try:
        next(CronSim(text, _CRON_FROM))
    except CronSimError as exc:
        refuse(f"is not a cron expression: {str(exc).lower()}")
    except StopIteration:
        refuse("is a cron expression that never comes true")
    except (AssertionError, TypeError, ValueError):  # what nonsense such as */L meets inside the library
        refuse("is not a cron expression")
    return " ".join(fields)


def _zone(text: str) -> str:
    if text not in zone_names():
        refuse(f"is no time zone: IANA names, as in Europe/Berlin{nearest(text, zone_names())}")
    return text


@cache
def zone_names() -> frozenset[str]:
    """Return the names of time zones that are known here."""
    return frozenset(available_timezones())


def _table(text: str) -> str:
    """Return ``schema.table`` with the schema filled in."""
    if '"' in text:
        refuse("write the name as the catalog has it, without quotes: upper and lower case count")
    schema, dot, table = text.partition(".")
    if not dot:
        schema, table = "public", text
    if not schema or not table or any(len(each.encode()) > _IDENTIFIER_BYTES for each in (schema, table)):
        refuse("is not a table: write SCHEMA.TABLE")
    return f"{schema}.{table}"


def _one_table(text: str) -> str:
    if "*" in text or "?" in text:
        refuse("must be one table: SCHEMA.TABLE")
    return _table(text)


def _table_or_schema(text: str) -> str:
    name = _table(text)
    schema, _, table = name.partition(".")
    if "*" in schema or ("*" in table and table != "*") or "?" in name:
        refuse(
            "write SCHEMA.TABLE, or SCHEMA.* for a schema that holds any table; there are no other patterns"
        )
    return name


def _location(text: str) -> str:
    try:
        check_location(text)
    except (UsageError, ValueError):  # its words may repeat a secret
        refuse(
            "is no repository location: a folder, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX;"
            " credentials go to environment"
        )
    return text


def _address(text: str) -> str:
    found = _ADDRESS.fullmatch(text)
    if not found or not 0 < int(found[1]) < 65536:
        refuse("is not an address: HOST:PORT, as in 127.0.0.1:9187")
    return text


def _fingerprint(text: str) -> str:
    if not _FINGERPRINT.fullmatch(text):
        refuse("expected 64 hexadecimal digits, as pgstow audit admin-key prints them")
    return text


def _label(text: str) -> str:
    if "," in text:
        refuse("a label cannot hold commas")
    return text


def _strategy(text: str) -> str:
    if text not in _STRATEGIES:
        refuse(f"is no way to choose a backup: {', '.join(_STRATEGIES)}{nearest(text, _STRATEGIES)}")
    return text


def _control(text: str) -> str:
    found = re.fullmatch(r"[Cc]([1-9][0-9]?)", text, re.ASCII)
    if not found or int(found[1]) > _MOST_CONTROLS:
        refuse(f"is no control: C1 to C{_MOST_CONTROLS}")
    return f"C{found[1]}"


def _day(text: str) -> date:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        refuse("is not a day: write it like 2026-12-31")


_STRATEGIES = ("rotate", "latest", "random", "oldest")
_MOST_CONTROLS = 22

Text = Annotated[str, _of(lambda text: text), WithJsonSchema({"type": "string", "minLength": 1})]
Name = Annotated[
    str, _of(_name), WithJsonSchema({"type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}$"})
]
Fingerprint = Annotated[
    str, _of(_fingerprint), WithJsonSchema({"type": "string", "pattern": "^[0-9a-f]{64}$"})
]
Label = Annotated[str, _of(_label), WithJsonSchema({"type": "string", "pattern": "^[^,]+$"})]
Flag = Annotated[bool, _of(_flag), WithJsonSchema({"type": "boolean"})]
Count = Annotated[int, _of(_count), WithJsonSchema(_NUMBER)]
Positive = Annotated[int, _of(_positive), WithJsonSchema({"type": "integer", "minimum": 1})]
DAYS_SCHEMA: dict[str, Any] = {
    "oneOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": "^[0-9]{1,6} ?d?$"}]
}
Days = Annotated[int, _of(_days), WithJsonSchema(DAYS_SCHEMA)]
Duration = Annotated[
    float,
    _of(_duration),
    WithJsonSchema({"oneOf": [{"const": 0}, {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? ?[smhd]$"}]}),
]
Size = Annotated[
    int,
    _of(_size),
    WithJsonSchema(
        {
            "oneOf": [
                {"type": "integer", "minimum": 1},
                {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? ?([KMGTPkmgtp]?i?[Bb]?)(/s)?$"},
            ]
        }
    ),
]
Share = Annotated[
    float, _of(_share), WithJsonSchema({"type": "string", "pattern": r"^[0-9]{1,3}(\.[0-9]+)? ?%$"})
]
Cron = Annotated[str, _of(_cron), WithJsonSchema({"type": "string", "pattern": r"^\S+( +\S+){4}$"})]
ZoneName = Annotated[str, _of(_zone), WithJsonSchema({"type": "string"})]
TableName = Annotated[str, _of(_one_table), WithJsonSchema({"type": "string", "pattern": r'^[^"*?]+$'})]
TablePattern = Annotated[
    str, _of(_table_or_schema), WithJsonSchema({"type": "string", "pattern": r'^([^"*?]+|[^"*?.]+\.\*)$'})
]
Strategy = Annotated[
    Literal["rotate", "latest", "random", "oldest"],
    _of(_strategy),
    WithJsonSchema({"enum": list(_STRATEGIES)}),
]
Control = Annotated[
    str, _of(_control), WithJsonSchema({"type": "string", "pattern": "^[Cc]([1-9]|1[0-9]|2[0-2])$"})
]
Day = Annotated[
    date, _of(_day), WithJsonSchema({"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"})
]
Location = Annotated[str, _of(_location), WithJsonSchema({"type": "string", "minLength": 1})]
Address = Annotated[str, _of(_address), WithJsonSchema({"type": "string", "pattern": ":[0-9]{1,5}$"})]
