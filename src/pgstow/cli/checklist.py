"""``pgstow checklist``"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from pgstow.app.checklist import run_checklist
from pgstow.app.looking import Look
from pgstow.cli.command import Invocation
from pgstow.cli.formats import safe
from pgstow.cli.output import Outcome, Output, Status
from pgstow.core.errors import UsageError
from pgstow.monitor.checklists import Checklist, Item, Period, Result
from pgstow.monitor.words import moment_words

__all__ = ["checklist_command"]

_STATUS: dict[Result, Status] = {Result.PASS: "done", Result.FAIL: "failed", Result.UNKNOWN: "partial"}
_STYLES = {Result.PASS: "green", Result.FAIL: "bold red", Result.UNKNOWN: "magenta"}


def checklist_command(
    invocation: Invocation,
    period: Annotated[Period, typer.Argument(metavar="daily|weekly|monthly", help="Which checklist.")],
    database: Annotated[
        list[str] | None,
        typer.Option("--database", metavar="NAME", help="Only this database. May be given several times."),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print it as Markdown, to be filed.")] = False,
) -> Outcome:
    """Go through the daily, weekly or monthly checklist: each item passes, fails or is unknown, with its evidence.

    Exits with 0 only when every item passes, with 1 when one fails, with 3 when none fails and one is unknown. The
    weekly and monthly lists write a tiny object to each repository and remove it, to compare clocks.
    """
    output = invocation.output
    if markdown and output.as_json:
        raise UsageError("--markdown and --json cannot be combined")
    with output.progress() as progress:
        result = run_checklist(
            period,
            Look(
                settings=invocation.settings(),
                environ=invocation.environ,
                now=datetime.now(UTC),
                databases=database or [],
                note=progress.note,
                conceal=output.conceal,
            ),
        )
    if markdown:
        output.stdout.write("\n".join(_markdown(result, output)) + "\n")
    return Outcome(
        status=_STATUS[result.result],
        document=_document(result, output),
        view=list(_view(result, output)),
        is_silent=markdown,
    )


def _document(result: Checklist, output: Output) -> dict[str, Any]:
    return {
        "period": result.period.value,
        "now": result.now.isoformat(),
        "result": result.result.value,
        "counts": {each.value: result.count(each) for each in Result},
        "items": [
            {
                "code": item.code,
                "title": item.title,
                "subject": item.subject,
                "result": item.result.value,
                "evidence": output.scrub(item.evidence),
                "look": item.look,
            }
            for item in result.items
        ],
    }


def _heading(item: Item) -> str:
    return f"{item.title} ({item.subject})" if item.subject else item.title


def _counts(result: Checklist) -> str:
    return ", ".join(f"{result.count(each)} {each.value}" for each in Result)


def _view(result: Checklist, output: Output) -> Iterator[RenderableType]:
    yield Text(f"{result.period.value.capitalize()} checklist, {moment_words(result.now)}", style="bold")
    yield Text()
    for item in result.items:
        mark = Text(f"{item.result.value:7}", style=_STYLES[item.result])
        yield Text.assemble(mark, "  ", safe(_heading(item)))
        yield Text(f"         {safe(output.scrub(item.evidence))}", style="dim")
        if item.result is not Result.PASS:
            yield Text(f"         {safe(item.look)}", style="cyan")
    yield Text()
    yield Text.assemble((result.result.value, _STYLES[result.result]), f"  {_counts(result)}")


def _markdown(result: Checklist, output: Output) -> Iterator[str]:
    yield f"# {result.period.value.capitalize()} checklist, {moment_words(result.now)}"
    yield ""
    yield f"Result: **{result.result.value}** ({_counts(result)})"
    yield ""
    for item in result.items:
        box = "x" if item.result is Result.PASS else " "
        mark = "" if item.result is Result.PASS else f"**{item.result.value.upper()}** "
        yield f"- [{box}] {mark}{_escaped(_heading(item))}  "
        yield f"  {_escaped(output.scrub(item.evidence))}  "
        yield f"  Look with: `{safe(item.look).replace('`', '')}`"


def _escaped(text: str) -> str:
    """Return ``text`` as it reads in Markdown: foreign words must not become links, pictures or HTML."""
    return "".join(f"\\{char}" if char in "\\`*_{}[]<>#|!" else char for char in safe(text))
