"""What is shown of the settings, what the schema says of the form, and what the page tells: they agree with the reader."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from pgstow.config.finding import find_settings_file, require_settings_file
from pgstow.config.schema import json_schema
from pgstow.config.settings import Settings
from pgstow.config.showing import settings_document, yaml_text
from pgstow.core.errors import UsageError
from support.settings_files import EXAMPLES, PAGE, SMALL, look, reference_text

TEXTS = [SMALL, reference_text(), *(path.read_text() for path in EXAMPLES)]


def settings_of(text: str) -> Settings:
    settings = look(text).settings
    assert settings is not None, look(text).errors
    return settings


def as_editors_read(text: str) -> Any:
    loaded = YAML(typ="safe", pure=True).load(io.StringIO(text))
    return json.loads(json.dumps(loaded, default=str))  # to YAML 1.2, and so to editors, a day is a text


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_shown_is_a_file_that_says_the_same(text: str) -> None:
    settings = settings_of(text)
    document = settings_document(settings)
    shown = yaml_text(document)
    assert settings_of(shown) == settings
    assert json.loads(json.dumps(document)) == document
    assert yaml_text(settings_document(settings_of(shown))) == shown
    jsonschema.validate(as_editors_read(shown), json_schema())


def test_names_that_yaml_has_other_ideas_about() -> None:
    odd = 'databases: {"null": {url: "no"}}\nrepositories: {"1": {location: "*x", password: "${X}"}}\nplans:\n  "on": {kind: daily, schedule: "*/5 * * * *", label: "yes: # no"}\n'
    settings = settings_of(odd)
    assert settings_of(yaml_text(settings_document(settings))) == settings


def test_every_key_is_shown_or_has_no_value() -> None:
    """A key that the form has and the view forgets would silently be missing from what an auditor reads."""
    shown = yaml_text(settings_document(settings_of(reference_text())))
    left_out = {"ping", "environment"}
    for key in keys_of_the_schema() - left_out:
        assert re.search(rf"\b{key}'?:", shown), key


def keys_of_the_schema() -> set[str]:
    schema = json_schema()
    return {key for part in (schema, *schema["$defs"].values()) for key in part["properties"]}


def test_the_page_describes_every_key_and_its_example_uses_each() -> None:
    page, example = PAGE.read_text(), reference_text()
    for key in keys_of_the_schema():
        assert re.search(rf"^ *(?:- |# )?{key}:|[{{ ]{key}:", example, re.MULTILINE), key
    for kind in (
        "daily",
        "weekly",
        "monthly",
        "annual",
        "pre-deployment",
        "dr",
        "critical",
        "retention",
        "verify",
        "drill",
    ):
        assert f"`{kind}`" in page


@pytest.mark.parametrize("text", TEXTS)
def test_the_schema_accepts_what_the_reader_accepts(text: str) -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    jsonschema.validate(as_editors_read(text), json_schema())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("critical: [ledger]", "critcal: [ledger]"),
        ("critical: [ledger]", "critical: ledger"),
        ("critical: [ledger]", "critical: [{tabel: ledger}]"),
        ("critical: [ledger]", "critical:"),
        ("critical: [ledger]", "role_passwords: maybe"),
        ("critical: [ledger]", "rpo: 1"),
        ("password: file:password\n", "passwrod: file:password\n"),
        ("repositories:", "repositry:"),
        ("schedule: 0 2 * * *", "schedule: 0 2 * *"),
        ("retention: {}", "retention: {keep: forever and ever}"),
        ("channels: [slack]", "channels: slack"),
        ("${SLACK_URL}", "{urll: x}"),
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(old: str, new: str) -> None:
    assert old in SMALL
    text = SMALL.replace(old, new, 1)
    assert look(text).errors
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(as_editors_read(text), json_schema())


def test_where_the_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    home = {"HOME": str(tmp_path / "home")}
    assert find_settings_file(None, home) is None
    with pytest.raises(
        UsageError, match="no settings file was found: pgstow.yaml, .*/home/.config/pgstow/pgstow.yaml, /etc"
    ):
        require_settings_file(None, home)
    own = tmp_path / "home/.config/pgstow/pgstow.yaml"
    other = tmp_path / "xdg/pgstow/pgstow.yaml"
    for path in (own, other):
        path.parent.mkdir(parents=True)
        path.write_text(SMALL)
    assert find_settings_file(None, home) == own
    assert find_settings_file(None, {**home, "XDG_CONFIG_HOME": str(tmp_path / "xdg")}) == other
    Path("pgstow.yaml").write_text(SMALL)
    assert find_settings_file(None, home) == Path("pgstow.yaml")
    assert find_settings_file(None, {**home, "PGSTOW_CONFIG": "named.yaml"}) == Path("named.yaml")
    assert find_settings_file(Path("given"), {**home, "PGSTOW_CONFIG": "named.yaml"}) == Path("given")
