"""What is around the objects: extensions, and how the database was made and the server set."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pgstow.assurance.drill.checks.records import failed, listed, passed, skipped, summed_up
from pgstow.assurance.drill.checks.restored import Restored
from pgstow.catalog.drills import CheckRecord
from pgstow.postgres.configuration import differing_in_results, read_configuration
from pgstow.postgres.inventory import database_facts
from pgstow.postgres.raw import RawSession, open_raw

__all__ = ["check_configuration", "check_extensions", "check_locale"]


def check_extensions(restored: Restored, session: RawSession) -> Iterator[CheckRecord]:  # noqa: ARG001  as every check
    """Yield whether each extension is there, in the version of the source."""
    versions = {one.name: one.version for one in restored.manifest.extensions}
    names = sorted(
        {*versions, *(restored.text(one.tag) for one in restored.toc.entries if one.desc == b"EXTENSION")}
    )
    if (
        restored.manifest.is_partial
    ):  # the manifest names those of the database, the archive those of the choice
        names = sorted(restored.text(one.tag) for one in restored.toc.entries if one.desc == b"EXTENSION")
    if not names:
        yield skipped("extensions", "the backup holds no extensions")
        return
    problems = []
    for name in names:
        there, before = restored.installed.get(name), versions.get(name)
        if there is None and name in restored.context.optional_extensions:
            problems.append(
                skipped("extensions", "it may be missing, and is; what needs it was left out", subject=name)
            )
        elif there is None:
            problems.append(failed("extensions", "the extension is missing", subject=name))
        elif before is not None and there != before:
            problems.append(
                failed(
                    "extensions",
                    "the extension has another version here",
                    subject=name,
                    severity="warning",
                    expected=before,
                    found=there,
                )
            )
    good = passed("extensions", f"extensions are those of the source: {listed(names)}")
    yield from summed_up(good, problems)


def check_locale(restored: Restored, session: RawSession) -> Iterator[CheckRecord]:
    """Yield whether the database has the encoding and the locale of the source."""
    source, there = restored.manifest.server, database_facts(session)
    wanted = [source.encoding, source.collate, source.ctype]
    found = [there.encoding, there.collate, there.ctype]
    if restored.manifest.imported is None:  # a dump does not always say
        wanted += [source.locale_provider, source.icu_locale or ""]
        found += [there.locale_provider, there.icu_locale or ""]
    if wanted == found:
        shown = ", ".join(filter(None, found))
        yield passed("settings", f"encoding and locale are those of the source: {shown}")
        return
    yield failed(
        "settings",
        "the database has another encoding or locale here: text may sort differently",
        severity="warning",
        expected=", ".join(filter(None, wanted)),
        found=", ".join(filter(None, found)),
    )


def check_configuration(restored: Restored, session: RawSession) -> Iterator[CheckRecord]:  # noqa: ARG001  as every check
    """Yield, for information, which settings of the server differ that the results of queries may depend on.

    It is no fault of a backup: the server of a drill is set up for the drill.
    """
    recorded = restored.manifest.configuration
    if recorded is None or not recorded.is_captured:
        return
    with contextlib.closing(
        open_raw(restored.context.target, encoding=restored.toc.encoding, settings={})
    ) as plain:
        here = read_configuration(plain)
    differences = [
        f"{name} ({before} in the source, {now} here)"
        for name, before, now in differing_in_results(
            {one.name: one.value for one in recorded.settings},
            {one.name: one.value for one in here.settings},
        )
    ]
    if differences:
        message = f"the server of the drill differs in settings on which results may depend: {'; '.join(differences)}"
        yield skipped("settings", message, subject="configuration")
    else:
        message = "settings of the server on which results may depend are those of the source"
        yield passed("settings", message, subject="configuration")
