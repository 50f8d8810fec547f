"""Secrets of the settings are found wherever they stand in plain text, and what was not searched is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pgstow.app import evidence_secrets
from pgstow.app.evidence_secrets import KnownSecrets, known_secrets, search_for_secrets, secret_facts
from pgstow.audit.keys import HostKey
from pgstow.config.reading import read_settings
from pgstow.config.settings import Settings
from pgstow.evidence import facts as evidence
from support.evidence import BEGIN, signed_chain

PASSWORD, DATABASE_PASSWORD = "correct horse/battery", 'a second one: "staple"'


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "password").write_text(PASSWORD)
    (tmp_path / "password").chmod(0o600)
    path = tmp_path / "pgstow.yaml"
    path.write_text(
        "databases: {shop: {url: postgresql://db.example/shop, password: '${SHOP_PASSWORD}'}}\n"
        "repositories:\n"
        f"  near: {{location: {tmp_path}/near, password: file:{tmp_path}/password,"
        " environment: {AWS_REGION: '${REGION}'}}\n"
    )
    return read_settings(path)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "state").mkdir()
    return {
        "PGSTOW_STATE_DIR": str(tmp_path / "state"),
        "SHOP_PASSWORD": DATABASE_PASSWORD,
        "REGION": "eu-central-1",
    }


@pytest.fixture
def processes(tmp_path: Path) -> Path:
    folder = tmp_path / "proc"
    for number, arguments in ((1, b"init\0"), (77, b"psql\0dbname=shop\0")):
        (folder / str(number)).mkdir(parents=True)
        (folder / str(number) / "cmdline").write_bytes(arguments)
    (folder / "net").mkdir()
    return folder


def concealed(settings: Settings, environ: dict[str, str]) -> tuple[KnownSecrets, set[str]]:
    told: set[str] = set()
    return known_secrets(settings, environ, told.add), told


def searched(
    settings: Settings,
    environ: dict[str, str],
    processes: Path,
    *,
    records: list[tuple[str, bytes]] | None = None,
    logs: tuple[Path, ...] = (),
) -> dict[str, evidence.SearchFacts]:
    known, _ = concealed(settings, environ)
    found = search_for_secrets(
        known, settings, environ, records=records or [], logs=logs, processes=processes
    )
    return {each.place: each for each in found}


def test_secrets_are_what_is_secret_and_concealed(settings: Settings, environ: dict[str, str]) -> None:
    known, told = concealed(settings, environ)
    assert (len(known.forms), known.unknown) == (2, 0)  # a region is none
    assert told == {PASSWORD, DATABASE_PASSWORD}
    assert PASSWORD not in repr(known)


def test_servers_of_drills_and_the_state_database_have_secrets_too(
    settings: Settings, environ: dict[str, str]
) -> None:
    settings.path.write_text(
        settings.path.read_text() + "plans: {drill: {server: '${DRILL_URL}'}}\nstate: '${STATE_URL}'\n"
    )
    environ |= {
        "DRILL_URL": "postgresql://u:of+the+drills@db.example/postgres",
        "STATE_URL": "postgresql://u:of+the+state@db.example/state",
    }
    known, told = concealed(read_settings(settings.path), environ)
    assert (told - {PASSWORD, DATABASE_PASSWORD}, known.unknown) == ({"of+the+drills", "of+the+state"}, 0)


def test_what_cannot_be_had_or_is_short_is_counted(settings: Settings, environ: dict[str, str]) -> None:
    known, _ = concealed(settings, environ | {"SHOP_PASSWORD": "short"})
    assert (len(known.forms), known.unknown) == (1, 1)
    del environ["SHOP_PASSWORD"]
    known, _ = concealed(settings, environ)
    facts = secret_facts(settings, known)
    assert (facts.known, facts.unknown) == (1, 1)


def test_files_with_secrets_that_everybody_can_read_are_counted(
    settings: Settings, environ: dict[str, str], tmp_path: Path
) -> None:
    known, _ = concealed(settings, environ)
    assert secret_facts(settings, known).readable_by_others == 0
    (tmp_path / "password").chmod(0o644)
    assert secret_facts(settings, known).readable_by_others == 1


def test_where_no_secret_stands_none_is_found(
    settings: Settings, environ: dict[str, str], processes: Path, tmp_path: Path
) -> None:
    (tmp_path / "state" / "state.db").write_bytes(b"nothing of it")
    found = searched(settings, environ, processes, records=[("an audit entry", b"{}")])
    assert {place: (each.looked_at, each.found_in, each.error) for place, each in found.items()} == {
        "settings": (1, (), None),
        "processes": (2, (), None),
        "records": (2, (), None),
    }


@pytest.mark.parametrize(
    "text",
    [
        PASSWORD,
        "postgresql://u:correct%20horse%2Fbattery@db",
        r'{"p": "a second one: \"staple\""}',
        r'{"content":"{\"p\":\"a second one: \\\"staple\\\"\"}"}',
    ],
    ids=["plain", "in a URL", "in JSON", "in JSON within JSON"],
)
def test_a_secret_is_found_in_every_place(
    text: str, settings: Settings, environ: dict[str, str], processes: Path, tmp_path: Path
) -> None:
    content = f"before {text} after".encode()
    (processes / "77" / "cmdline").write_bytes(b"psql\0" + content + b"\0")
    settings.path.write_text(settings.path.read_text() + f"# {text}\n")
    (tmp_path / "state" / "deep").mkdir()
    (tmp_path / "state" / "deep" / "note").write_bytes(content)
    log = tmp_path / "cron.log"
    log.write_bytes(content)
    found = searched(settings, environ, processes, records=[("drill 1", content)], logs=(log,))
    assert {place: each.found_in for place, each in found.items()} == {
        "settings": (str(settings.path),),
        "processes": ("process 77",),
        "records": ("drill 1", f"{tmp_path}/state/deep/note"),
        "logs": (str(log),),
    }
    assert all(text not in each.model_dump_json() for each in found.values())


def test_a_secret_across_the_edge_of_two_pieces_is_found(
    settings: Settings,
    environ: dict[str, str],
    processes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evidence_secrets, "_PIECE", 32)
    log = tmp_path / "log"
    for before in range(64):
        log.write_text("x" * before + PASSWORD + "y" * 40)
        assert searched(settings, environ, processes, logs=(log,))["logs"].found_in, before


def test_a_secret_in_an_audit_entry_is_found(
    settings: Settings, environ: dict[str, str], processes: Path
) -> None:
    environ["SHOP_PASSWORD"] = 'Schlüssel "zwei"'
    words = {"note": f"it is {environ['SHOP_PASSWORD']}"}
    entry = signed_chain(HostKey.generate(), [], stated=[{"at": BEGIN, "facts": words}])[0]
    found = searched(settings, environ, processes, records=[("an audit entry", entry.raw)])
    assert found["records"].found_in == ("an audit entry",)


def test_the_file_that_holds_a_secret_by_the_settings_is_no_place_where_none_may_stand(
    settings: Settings, environ: dict[str, str], processes: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "state" / "password"
    (tmp_path / "password").rename(kept)
    settings.path.write_text(settings.path.read_text().replace(f"{tmp_path}/password", str(kept)))
    moved = read_settings(settings.path)
    assert searched(moved, environ, processes)["records"].found_in == ()
    (tmp_path / "state" / "copy").write_text(PASSWORD)
    assert searched(moved, environ, processes)["records"].found_in == (f"{tmp_path}/state/copy",)


def test_a_program_that_ends_meanwhile_is_no_error(
    settings: Settings, environ: dict[str, str], processes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evidence_secrets._pieces

    def pieces(path: Path) -> Iterator[bytes]:
        if "77" in path.parts:
            raise ProcessLookupError
        yield from whole(path)

    monkeypatch.setattr(evidence_secrets, "_pieces", pieces)
    found = searched(settings, environ, processes)["processes"]
    assert (found.looked_at, found.error) == (1, None)


def test_programs_of_others_that_are_hidden_are_told(
    settings: Settings, environ: dict[str, str], processes: Path
) -> None:
    (processes / "1").rename(processes / "1234")
    found = searched(settings, environ, processes)["processes"]
    assert (found.looked_at, "of other users" in (found.error or "")) == (2, True)


def test_a_log_without_end_is_searched_as_far_as_is_told(
    settings: Settings,
    environ: dict[str, str],
    processes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evidence_secrets, "_PIECE", 32)
    monkeypatch.setattr(evidence_secrets, "_MOST_BYTES", 1000)
    log = tmp_path / "log"
    log.write_text("x" * 5000 + PASSWORD)
    found = searched(settings, environ, processes, logs=(log,))["logs"]
    assert (found.found_in, "only the first" in (found.error or "")) == ((), True)


def test_what_was_not_searched_is_told(
    settings: Settings, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = searched(settings, environ, tmp_path / "none", logs=(tmp_path / "gone.log",))
    assert "does not show" in (found["processes"].error or "")
    assert "gone.log is no file" in (found["logs"].error or "")
    monkeypatch.setattr(evidence_secrets, "_MOST_BYTES", 10)
    many = searched(settings, environ, tmp_path, records=[("one", b"x" * 20), ("two", b"y")])
    assert (many["records"].looked_at, "only the first" in (many["records"].error or "")) == (1, True)
