"""The JSON Schema of the settings file, for editors: they complete keys and underline typos with it."""

from __future__ import annotations

from typing import Any

from pgstow.config.form import SettingsForm

__all__ = ["json_schema"]

_ID = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """Return the schema. What it cannot say, such as that a name exists, ``pgstow config check`` looks at."""
    schema = SettingsForm.model_json_schema()
    _tidy(schema)
    return {
        "$schema": _ID,
        "title": "pgstow.yaml",
        **{key: value for key, value in schema.items() if key != "title"},
        "required": ["databases", "repositories"],
    }


def _tidy(value: Any) -> None:  # noqa: ANN401  JSON
    """Take out, in place, that a key may be null: a key without a value is an error here; and names of our classes."""
    if isinstance(value, list):
        for each in value:
            _tidy(each)
    if not isinstance(value, dict):
        return
    for each in value.values():
        _tidy(each)
    if isinstance(value.get("title"), str):
        del value["title"]
    if "default" in value:
        del value["default"]  # they are told in words: ours are numbers where the file has 6h
    choices = value.get("anyOf")
    if isinstance(choices, list) and {"type": "null"} in choices:
        choices.remove({"type": "null"})
        if len(choices) == 1:
            del value["anyOf"]
            value.update({key: each for key, each in choices[0].items() if key not in value})
