"""What a settings file may say, and probably does not mean: warnings about what nothing uses, and nobody does."""

from __future__ import annotations

from pgstow.config.document import Document
from pgstow.config.meaning import DRILL, JOBS, Meaning
from pgstow.config.problems import Path

__all__ = ["note_oversights", "warn"]


def warn(document: Document, at: Path, message: str, *, shown: Path | None = None) -> None:
    """Note a warning about the key at ``at``."""
    document.add(at, message, at_key=True, is_warning=True, shown=shown)


def note_oversights(meaning: Meaning) -> None:
    """Note what runs nowhere, is backed up by nothing, or reaches nobody."""
    if not meaning.names("plans"):
        warn(meaning.document, ("plans",), "there is no plan: nothing runs by itself", shown=())
    elif len(meaning.form.plans) == len(meaning.names("plans")):  # else what the others do is not known
        _of_plans(meaning)
        _of_telling(meaning)


def _of_plans(meaning: Meaning) -> None:
    plans = meaning.form.plans
    backups = {name: plan for name, plan in plans.items() if meaning.kind_of(name, plan) not in JOBS}
    for name in meaning.form.databases:
        if not any(
            name in (plan.databases or meaning.suited_to(meaning.kind_of(each, plan)))
            for each, plan in backups.items()
        ):
            warn(meaning.document, ("databases", name), "no plan backs up this database")
    for name in meaning.form.repositories:
        if not any(
            name in (plan.repositories or meaning.taken_by(meaning.kind_of(each, plan)))
            for each, plan in backups.items()
        ):
            warn(meaning.document, ("repositories", name), "no plan puts backups into this repository")
    if not any(meaning.kind_of(name, plan) == "retention" for name, plan in plans.items()):
        warn(meaning.document, ("plans",), "no plan of kind retention: nothing expires by itself")
    if not any(meaning.kind_of(name, plan) == DRILL for name, plan in plans.items()):
        warn(
            meaning.document, ("plans",), "no plan of kind drill: that backups can be restored is never tried"
        )


def _of_telling(meaning: Meaning) -> None:
    used = {name for contact in meaning.form.contacts for name in contact.channels}
    for name in meaning.form.channels:
        if name not in used:
            warn(meaning.document, ("channels", name), "no contact uses this channel")
    if not meaning.form.contacts:
        warn(meaning.document, ("contacts",), "there are no contacts: nobody is told of alerts", shown=())
    for name, plan in meaning.form.plans.items():
        if plan.ping is not None and plan.ping.text is not None and "${" not in plan.ping.text:
            warn(
                meaning.document,
                ("plans", name, "ping"),
                "whoever reads this URL can feign success: a variable keeps it private",
            )
