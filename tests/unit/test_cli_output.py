"""Results and errors as text and as JSON; secrets in neither."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.text import Text

from pgstow.cli.output import Outcome, Output
from pgstow.core.errors import NoRepository, PgstowError, ProcessFailed, UsageError


def make(
    *, as_json: bool = False, is_quiet: bool = False, is_verbose: bool = False, debug: bool = False
) -> Output:
    return Output(
        command="backup",
        as_json=as_json,
        is_quiet=is_quiet,
        is_verbose=is_verbose,
        debug=debug,
        stdout=io.StringIO(),
        stderr=io.StringIO(),
    )


def written(output: Output) -> tuple[str, str]:
    assert isinstance(output.stdout, io.StringIO)
    assert isinstance(output.stderr, io.StringIO)
    return output.stdout.getvalue(), output.stderr.getvalue()


def document(output: Output) -> Any:
    return json.loads(written(output)[0])


def test_result_is_text_on_stdout_without_trailing_blanks() -> None:
    output = make()
    output.result(Outcome(document={"x": 1}, view=[Text("one   "), Text("[bold]two[/bold] :smile:")]))
    assert written(output) == ("one\n[bold]two[/bold] :smile:\n", "")


def test_result_is_one_document_with_the_contract_around_it() -> None:
    output = make(as_json=True)
    output.result(Outcome(status="partial", document={"name": "\x1b[31m\u00fc"}, view=[Text("unused")]))
    assert document(output) == {
        "schema": "pgstow/1",
        "command": "backup",
        "status": "partial",
        "name": "\x1b[31m\u00fc",
    }
    assert written(output)[0].isascii()


@pytest.mark.parametrize(("status", "code"), [("done", 0), ("failed", 1), ("partial", 3)])
def test_status_is_the_exit_code(status: Any, code: int) -> None:
    assert Outcome(status=status, document={}).exit_code == code


def test_error_for_people() -> None:
    output = make()
    output.error(NoRepository("there is no repository at /x\x1b[2J", hint="pgstow init makes one"))
    assert written(output) == (
        "",
        "error: there is no repository at /x\\x1b[2J\nHINT: pgstow init makes one\n",
    )


def test_long_error_is_not_cut_into_lines() -> None:
    output = make()
    output.error(PgstowError("x " * 500 + "end"))
    assert written(output)[1].count("\n") == 1


def test_error_that_quotes_a_program_keeps_its_lines() -> None:
    output = make()
    output.error(ProcessFailed("pg_restore failed with exit status 1: one\ntwo\t\x07"))
    assert written(output)[1] == "error: pg_restore failed with exit status 1: one\ntwo\\t\\x07\n"


def test_error_as_document() -> None:
    output = make(as_json=True)
    output.error(
        ProcessFailed("pg_dump failed", exit_status=1, stderr_tail="a\nb"),
        consequence="nothing was published",
    )
    assert document(output) == {
        "schema": "pgstow/1",
        "command": "backup",
        "status": "failed",
        "error": {
            "code": "process_failed",
            "message": "pg_dump failed; nothing was published",
            "hint": None,
            "facts": {"exit_status": 1, "stderr_tail": "a\nb"},
        },
    }
    assert written(output)[1] == ""


@pytest.mark.parametrize("as_json", [False, True])
def test_secrets_are_blanked_everywhere(as_json: bool) -> None:
    output = make(as_json=as_json, is_verbose=True, debug=True)
    output.conceal("hunter22", "t", "")
    output.note("note hunter22")
    output.warn("warn hunter22")
    output.error(
        PgstowError(
            "failed with hunter22 and postgresql://u:other77@h/d",
            hint="not hunter22",
            stderr_tail="hunter22",
            lines=["password=other77"],
        )
    )
    try:
        raise ValueError("hunter22")
    except ValueError as exc:
        output.bug(exc)
    everything = "".join(written(output))
    assert "hunter22" not in everything
    assert "other77" not in everything
    assert "t" in everything  # one letter is not taken for a secret


def test_scrubbing_leaves_ordinary_addresses_alone() -> None:
    text = "cannot reach http://127.0.0.1:9000/bucket as pgstow@backup; password authentication failed for alice@db"
    assert make().scrub(text) == text


def test_bug_shows_its_traceback_only_on_request() -> None:
    for debug in (False, True):
        output = make(debug=debug)
        try:
            raise KeyError("lost")
        except KeyError as exc:
            output.bug(exc)
        stdout, stderr = written(output)
        assert stdout == ""
        assert "this is a bug in pgstow: KeyError" in stderr
        assert ("Traceback" in stderr) is debug


def test_bug_as_document() -> None:
    output = make(as_json=True)
    output.bug(KeyError("lost"))
    assert document(output)["error"]["code"] == "internal"
    assert document(output)["status"] == "failed"


def test_quiet_says_only_what_failed() -> None:
    output = make(is_quiet=True)
    output.note("n")
    output.warn("w")
    with output.progress() as progress:
        progress.phase("reading")
        progress.note("n")
    output.error(PgstowError("it failed"))
    assert written(output) == ("", "error: it failed\n")


def test_without_a_terminal_progress_is_notes_and_with_verbose_lines() -> None:
    plain, verbose = make(), make(is_verbose=True)
    for output in (plain, verbose):
        with output.progress() as progress:
            progress.phase("reading tables")
            progress.advance(rows=5, size_bytes=2048)
            progress.note("waiting for a lock")
    assert written(plain)[1] == "waiting for a lock\n"
    assert written(verbose)[1].startswith(
        "reading tables\nwaiting for a lock\nreading tables: 5 rows, 2.0 KiB in "
    )


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_somebody_who_types_nothing_has_given_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-D at a prompt ends the input; that is no bug, and no name that was typed wrong."""

    def ended(_prompt: str, stream: object) -> str:
        raise EOFError

    output = make()
    output.stderr = _Terminal()
    monkeypatch.setattr("sys.stdin", _Terminal())
    monkeypatch.setattr("getpass.getpass", ended)
    ask = output.asker("password of the repository")
    assert ask is not None
    with pytest.raises(UsageError, match="no password of the repository was given"):
        ask()
    assert output.question("sure?") is None


def test_nobody_is_asked_without_a_terminal() -> None:
    output = make()
    assert output.asker("password") is None
    assert output.question("sure?") is None
