"""Finding client programs and choosing among them, with programs that only know their release."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgstow.core.errors import ToolMissing
from pgstow.postgres.tools import ClientTools, find_tools, known_outdated, pick, program_folders

PROGRAMS = ("pg_dump", "pg_restore", "pg_dumpall")


def install(
    folder: Path, text: str, *, programs: tuple[str, ...] = PROGRAMS, configure: str | None = None
) -> Path:
    """Make an installation whose programs print ``text`` as their release."""
    folder.mkdir(parents=True)
    for name in programs:
        script(folder / name, f"echo '{name} (PostgreSQL) {text}'")
    if configure is not None:
        script(folder / "pg_config", f'echo "{configure}"')
    return folder


def script(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def tool(major: int, minor: int, *, has_tls: bool = True, bin_dir: str = "/x") -> ClientTools:
    return ClientTools(
        version=(major, minor), text=f"{major}.{minor}", bin_dir=Path(bin_dir), has_tls=has_tls
    )


def found_in(tmp_path: Path, tools: list[ClientTools]) -> list[ClientTools]:
    """Leave out what this machine has installed."""
    return [one for one in tools if one.bin_dir.is_relative_to(tmp_path.resolve())]


def test_programs_are_found_with_their_release(tmp_path):
    one = install(tmp_path / "one", "15.20 (Debian 15.20-0+deb12u1)", configure="'--with-openssl'")
    two = install(tmp_path / "two", "18.4", configure="'--without-icu'")
    tools = found_in(tmp_path, find_tools(f"{two}:/nonexistent:", extra=[one]))
    assert [(t.version, t.text, t.has_tls) for t in tools] == [
        ((15, 20), "15.20 (Debian 15.20-0+deb12u1)", True),
        ((18, 4), "18.4", False),
    ]
    assert tools[0].pg_dump == one.resolve() / "pg_dump"
    assert tools[0].pg_restore == one.resolve() / "pg_restore"
    assert tools[0].pg_dumpall == one.resolve() / "pg_dumpall"


def test_folders_of_others_on_the_path_are_passed_over(tmp_path, monkeypatch):
    """sudo and su keep a PATH with folders that the new user may not enter."""
    theirs, found = tmp_path / "theirs", install(tmp_path / "bin", "18.4")
    is_dir = Path.is_dir

    def refuse(path):
        if path == theirs:
            raise PermissionError(13, "Permission denied")
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", refuse)
    tools = found_in(tmp_path, find_tools(f"{theirs}:{found}"))
    assert [tool.bin_dir for tool in tools] == [found.resolve()]


@pytest.mark.parametrize(
    ("text", "version"), [("19beta2", (19, 0)), ("20devel", (20, 0)), ("16rc1", (16, 0))]
)
def test_releases_before_the_final_one_count_as_minor_zero(tmp_path, text, version):
    folder = install(tmp_path / "bin", text)
    (found,) = found_in(tmp_path, find_tools(str(folder)))
    assert found.version == version


def test_meson_builds_tell_of_tls(tmp_path):
    folder = install(tmp_path / "bin", "17.1", configure="-Dssl=openssl")
    (found,) = found_in(tmp_path, find_tools(str(folder)))
    assert found.has_tls


def test_incomplete_broken_and_wrapped_installations_are_left_out(tmp_path):
    incomplete = install(tmp_path / "incomplete", "15.1", programs=("pg_dump", "pg_restore"))
    broken = install(tmp_path / "broken", "15.1")
    script(broken / "pg_dump", "exit 127")
    other = install(tmp_path / "other", "15.1")
    script(other / "pg_dump", "echo 'pg_dump (EnterpriseThing) 15.1'")
    wrapper = tmp_path / "wrapper"
    wrapper.mkdir()
    script(tmp_path / "pg_wrapper", "echo 'pg_dump (PostgreSQL) 15.1'")
    for name in PROGRAMS:
        (wrapper / name).symlink_to(tmp_path / "pg_wrapper")
    folders = ":".join(map(str, (incomplete, broken, other, wrapper)))
    assert found_in(tmp_path, find_tools(folders)) == []


def test_a_folder_counts_once_however_it_is_named(tmp_path):
    folder = install(tmp_path / "bin", "15.1")
    (tmp_path / "link").symlink_to(folder)
    folders = program_folders(f"{folder}:{tmp_path / 'link'}:{folder}/../bin")
    assert [path for path in folders if path.is_relative_to(tmp_path.resolve())] == [folder.resolve()]


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        pytest.param(150020, (15, 9), id="its own release, highest minor"),
        pytest.param(140001, (15, 9), id="the next newer one"),
        pytest.param(160000, (17, 2), id="a gap"),
        pytest.param(180004, (18, 1), id="the newest"),
    ],
)
def test_the_nearest_release_that_is_not_older_is_picked(server, expected):
    tools = [tool(18, 1), tool(15, 8), tool(13, 9), tool(15, 9), tool(17, 2)]
    assert pick(tools, server).version == expected


def test_tls_wins_between_equals_and_the_first_between_those():
    first, second, third = tool(15, 9, has_tls=False), tool(15, 9, bin_dir="/a"), tool(15, 9, bin_dir="/b")
    assert pick([first, second, third], 150000) is second


def test_tools_without_tls_are_no_tools_where_it_is_needed():
    plain, newer = tool(15, 9, has_tls=False), tool(18, 1)
    assert pick([plain, newer], 150000) is plain
    assert pick([plain, newer], 150000, needs_tls=True) is newer
    with pytest.raises(ToolMissing, match="with TLS of release 15 or newer"):
        pick([plain], 150000, needs_tls=True)


def test_an_older_release_is_never_picked_and_the_hint_says_what_to_install():
    with pytest.raises(ToolMissing, match=r"release 18 or newer was found \(found: 15\.9, 17\.2\)") as caught:
        pick([tool(15, 9), tool(17, 2)], 180004)
    assert "postgresql-client-18" in (caught.value.hint or "")
    with pytest.raises(ToolMissing, match="found: none"):
        pick([], 150000)


@pytest.mark.parametrize("version", [(15, 19), (15, 20), (16, 15), (17, 11), (18, 6), (18, 7), (19, 0)])
def test_releases_with_the_fix_are_fine(version):
    assert known_outdated(version) is None


@pytest.mark.parametrize("version", [(15, 18), (16, 14), (17, 10), (18, 5), (18, 0)])
def test_releases_before_the_fix_are_told(version):
    assert "CVE-2026-18408" in (known_outdated(version) or "")


@pytest.mark.parametrize("version", [(14, 23), (12, 0)])
def test_majors_without_support_are_told(version):
    assert "no longer gets security fixes" in (known_outdated(version) or "")
