"""The one line that Nagios and its kin read, and their exit codes.

Source: Monitoring Plugins Development Guidelines, "Plugin Output for Nagios" and "Return Codes".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pgstow.cli.formats import safe
from pgstow.cli.output import Outcome, Output, Status
from pgstow.core.errors import PgstowError
from pgstow.monitor.levels import Level
from pgstow.monitor.verdict import DatabaseVerdict, Verdict
from pgstow.monitor.words import duration_words

__all__ = ["check_outcome", "unknown_outcome"]

_EXIT_CODES = {Level.OK: 0, Level.WARNING: 1, Level.CRITICAL: 2, Level.UNKNOWN: 3}
_STATUS: Mapping[Level, Status] = {
    Level.OK: "done",
    Level.WARNING: "failed",
    Level.CRITICAL: "failed",
    Level.UNKNOWN: "partial",
}
_TOLD = 4


def check_outcome(verdict: Verdict, document: Mapping[str, Any], output: Output) -> Outcome:
    """Write the line for a verdict; return its document, with the exit code of its level."""
    reasons = verdict.all_reasons
    told = [f"{name}: {reason.text}" if name else reason.text for name, reason in reasons[:_TOLD]]
    if len(reasons) > _TOLD:
        told.append(f"and {len(reasons) - _TOLD} more")
    if not told:
        told = [_healthy(each) for each in verdict.databases]
    return _outcome(verdict.level, "; ".join(told), " ".join(_performance(verdict)), document, output)


def unknown_outcome(error: PgstowError, output: Output) -> Outcome:
    """Write the line for an error that left everything unknown."""
    document = {"level": Level.UNKNOWN.value, "error": output.error_document(error)}
    return _outcome(Level.UNKNOWN, error.message, "", document, output)


def _outcome(
    level: Level, text: str, performance: str, document: Mapping[str, Any], output: Output
) -> Outcome:
    # A bar begins the performance data, and a second line would be another kind of output.
    told = safe(output.scrub(text)).replace("|", "/")
    if not output.as_json:  # not as a view: that is cut into lines at some width
        bar = f" | {performance}" if performance else ""
        output.stdout.write(f"PGSTOW {level.name} - {told}{bar}\n")
    return Outcome(document=document, status=_STATUS[level], is_silent=True, own_exit_code=_EXIT_CODES[level])


def _healthy(database: DatabaseVerdict) -> str:
    return f"{database.name}: newest backup {duration_words(database.standing.newest_age_s or 0)} old"


def _performance(verdict: Verdict) -> Iterator[str]:
    for each in verdict.databases:
        standing = each.standing
        ages = {
            "age": (standing.newest_age_s, verdict.max_age_s),
            "rpo": (standing.achieved_rpo_s, standing.database.rpo_s),
            "rto": (standing.recovery.achieved_rto_s, standing.database.rto_s),
        }
        for what, (found_s, limit_s) in ages.items():
            if found_s is not None and (what == "age" or limit_s is not None):
                limit = f"{limit_s:.0f}" if limit_s is not None else ""
                yield f"{_label(f'{each.name} {what}')}={found_s:.0f}s;;{limit};0"
        if standing.newest is not None and standing.newest.size_bytes is not None:
            yield f"{_label(f'{each.name} size')}={standing.newest.size_bytes}B;;;0"
    for repository in verdict.facts.repositories.values():
        for storage in repository.storage:
            if storage.free_bytes is not None and storage.total_bytes is not None:
                least = round(storage.total_bytes * verdict.facts.policy.free_space)
                yield (
                    f"{_label(f'{storage.where} free')}={storage.free_bytes}B;{least}:;;0;{storage.total_bytes}"
                )


def _label(text: str) -> str:
    """Return a label in quotes; a quote in it is doubled, and an equals sign may not stand in it."""
    return "'" + safe(text).replace("'", "''").replace("=", "_").replace("|", "/") + "'"
