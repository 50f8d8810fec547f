"""Where the repository's password comes from, and what wins."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pgstow.cli.passwords import read_password
from pgstow.core.errors import ProcessFailed, ToolMissing, UsageError


def password_file(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / f"password-{len(list(folder.iterdir()))}"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def read(
    environ: dict[str, str] | None = None,
    *,
    file: Path | None = None,
    command: str | None = None,
    ask: Callable[[], str] | None = None,
) -> tuple[str, list[str]]:
    warnings: list[str] = []
    secret = read_password(file=file, command=command, environ=environ or {}, ask=ask, warn=warnings.append)
    return secret.reveal(), warnings


def test_file_is_read_without_the_white_space_around_it(tmp_path: Path) -> None:
    assert read(file=password_file(tmp_path, b"\xef\xbb\xbf  se cret \r\n")) == ("se cret", [])


def test_only_the_first_line_of_a_command_is_the_password() -> None:
    command = f"{sys.executable} -c \"print('first line'); print('user: alice')\""
    assert read(command=command) == ("first line", [])


def test_command_is_not_given_to_a_shell(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    password, _ = read(command=f"echo secret; touch {witness}")
    assert password == f"secret; touch {witness}"
    assert not witness.exists()


def test_command_that_fails_is_an_error_even_if_it_printed_something() -> None:
    with pytest.raises(ProcessFailed, match="exit status 3"):
        read(command=f"{sys.executable} -c \"print('secret'); raise SystemExit(3)\"")


def test_command_that_is_not_there() -> None:
    with pytest.raises(ToolMissing, match="no-such-program"):
        read(command="no-such-program-anywhere")


@pytest.mark.parametrize("command", ["", "   ", "echo 'unbalanced"])
def test_command_that_is_none(command: str) -> None:
    with pytest.raises(UsageError, match="password command"):
        read(command=command)


def test_flags_win_over_the_environment(tmp_path: Path) -> None:
    environ = {
        "PGSTOW_PASSWORD": "from environment",
        "PGSTOW_PASSWORD_FILE": str(password_file(tmp_path, b"from environment's file")),
        "PGSTOW_PASSWORD_COMMAND": "echo from environments command",
    }
    assert read(environ, file=password_file(tmp_path, b"from file"))[0] == "from file"
    assert read(environ, command="echo from command")[0] == "from command"
    assert read(environ)[0] == "from environment"
    del environ["PGSTOW_PASSWORD"]
    assert read(environ)[0] == "from environment's file"
    del environ["PGSTOW_PASSWORD_FILE"]
    assert read(environ)[0] == "from environments command"


def test_both_flags_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot both be given"):
        read(file=password_file(tmp_path, b"x"), command="echo x")


def test_a_person_is_asked_when_nothing_else_says() -> None:
    assert read(ask=lambda: "typed")[0] == "typed"
    with pytest.raises(UsageError, match="no password") as caught:
        read()
    assert "PGSTOW_PASSWORD_FILE" in (caught.value.hint or "")


@pytest.mark.parametrize("content", [b"", b" \n"])
def test_empty_file_is_no_password(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UsageError, match="is empty"):
        read(file=password_file(tmp_path, content))


def test_file_that_is_not_text(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="UTF-8"):
        read(file=password_file(tmp_path, b"\xff\xfe\x00"))


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read(file=tmp_path / "absent")


def test_warns_of_a_file_that_everyone_can_read(tmp_path: Path) -> None:
    _, warnings = read(file=password_file(tmp_path, b"secret", mode=0o644))
    assert len(warnings) == 1
    assert "chmod 600" in warnings[0]
    assert read(file=password_file(tmp_path, b"secret", mode=0o640))[1] == []


def test_a_pipe_is_as_good_as_a_file() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"from a pipe\n")
    os.close(writer)
    try:
        assert read(file=Path(f"/dev/fd/{reader}")) == ("from a pipe", [])
    finally:
        os.close(reader)
