"""Running pg_restore on parts of the archive.

pg_restore replays everything but rows: it knows the catalog. Each run gets a folder that holds nothing but a
``toc.dat`` and a list of the entries to restore.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pgstow.core.errors import ConnectionFailed, RestoreError
from pgstow.postgres.archive import Section, Toc, TocEntry, list_file, write_directory_toc
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.programs import connected
from pgstow.postgres.session import connect
from pgstow.postgres.tools import ClientTools
from pgstow.postgres.workspace import working_folder
from pgstow.restore.messages import read_failure, without_statements
from pgstow.restore.naming import described
from pgstow.restore.selection import PRIVILEGES, Selection

__all__ = ["REFRESH", "Runs", "Sections", "arrange"]

_TAIL_LINES = 5000  # an error comes before its statement, which may be long
REFRESH = b"MATERIALIZED VIEW DATA"
# What nothing else needs and a server may refuse, for reasons of its own; with what is said of them.
_LATE = {
    REFRESH,
    b"EVENT TRIGGER",
    b"PUBLICATION",
    b"PUBLICATION TABLE",
    b"PUBLICATION TABLES IN SCHEMA",
    b"SECURITY LABEL",
    b"SUBSCRIPTION",
    b"SUBSCRIPTION TABLE",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """The entries of each run of pg_restore, in order. Rows and large objects are not among them."""

    pre_data: tuple[TocEntry, ...]
    data: tuple[TocEntry, ...]  # sequence values, statistics, large objects without their contents
    post_data: tuple[TocEntry, ...]
    late: tuple[TocEntry, ...] = ()  # what a recovery can do without


def arrange(toc: Toc, selection: Selection, left_out: frozenset[int]) -> Runs:
    """Return which run each selected entry belongs to.

    Comments and labels go with the section they stand in. Privileges come last of all, as in a whole
    pg_restore: an owner who revoked INSERT from himself could not load the rows.
    """
    wanted = {entry.dump_id for entry in selection.entries} - left_out
    runs: dict[Section, list[TocEntry]] = {Section.PRE_DATA: [], Section.DATA: [], Section.POST_DATA: []}
    late: dict[int, TocEntry] = {}
    current = Section.PRE_DATA
    for entry in toc.entries:
        if entry.section is not Section.NONE:
            current = entry.section
        if entry.dump_id not in wanted or entry.has_data:
            continue
        is_about_late = entry.section is Section.NONE and not late.keys().isdisjoint(entry.dependencies)
        if entry.desc in _LATE or is_about_late:
            late[entry.dump_id] = entry
        else:
            runs[Section.POST_DATA if entry.desc in PRIVILEGES else current].append(entry)
    return Runs(
        pre_data=tuple(runs[Section.PRE_DATA]),
        data=tuple(runs[Section.DATA]),
        post_data=tuple(runs[Section.POST_DATA]),
        late=tuple(late.values()),
    )


@dataclass(slots=True)
class Sections:
    """Runs pg_restore against one target. Use ``opened()``; its folder goes when the block ends."""

    tools: ClientTools
    target: ConnInfo
    toc: Toc
    folder: Path
    flags: tuple[str, ...]
    settings: dict[str, str]
    messages: list[str] = field(default_factory=list)  # what pg_restore said without failing

    @classmethod
    @contextlib.contextmanager
    def opened(
        cls, tools: ClientTools, target: ConnInfo, toc: Toc, *, flags: Sequence[str], settings: dict[str, str]
    ) -> Iterator[Sections]:
        """Prepare runs on ``toc``; ``flags`` go to every run, ``settings`` into every session of pg_restore."""
        # What a killed restore left there is removed first: definitions may hold the passwords of user mappings.
        with working_folder(Path(tempfile.gettempdir()), lambda _: None, "restore") as folder:
            sections = cls(tools, target, toc, folder, tuple(flags), settings)
            if not sections._are_options_accepted():
                sections.settings = {}
            yield sections

    def _are_options_accepted(self) -> bool:
        """Whether settings can be given at connection time; some poolers refuse that."""
        try:
            connect(self.target.with_settings(self.settings)).close()
        except ConnectionFailed:
            connect(self.target).close()  # raises when the options were not the reason
            return False
        return True

    def restore(
        self,
        entries: Sequence[TocEntry],
        *,
        jobs: int = 1,
        maintenance_work_mem: int | None = None,
        is_one_transaction: bool = False,
        has_row_security: bool = False,
    ) -> None:
        """Restore ``entries``, in this order as far as dependencies between parallel jobs allow.

        ``is_one_transaction``: all of them or none; for one job alone. ``has_row_security``: policies filter what statements
        read, where pg_restore would have them fail. Raises RestoreError with the message and the object it is about.
        """
        if not entries:
            return
        archive = self._archive("archive", self.toc)
        listed = self.folder / "list"
        listed.write_bytes(list_file(entries))
        extra = {"maintenance_work_mem": f"{maintenance_work_mem // 1024}kB"} if maintenance_work_mem else {}
        how = ["--single-transaction"] if is_one_transaction else [f"--jobs={jobs}"]
        how += ["--enable-row-security"] if has_row_security else []
        self._run([*self.flags, *how, f"--use-list={listed}", str(archive)], self.toc, extra)

    def drop(self, drops: Toc) -> None:
        """Drop everything in ``drops`` (an archive that only drops), all of it or nothing.

        Raises RestoreError with the message and the object it is about.
        """
        archive = self._archive("drops", drops)
        self._run(["--clean", "--if-exists", "--single-transaction", *self.flags, str(archive)], drops, {})

    def _archive(self, name: str, toc: Toc) -> Path:
        folder = self.folder / name
        if not folder.exists():
            folder.mkdir()
            (folder / "toc.dat").write_bytes(write_directory_toc(toc))
        return folder

    def _run(self, arguments: Sequence[str], toc: Toc, extra: dict[str, str]) -> None:
        with connected(
            [self.tools.pg_restore, "--exit-on-error", *arguments],
            self.target,
            settings={**self.settings, **extra} if self.settings else {},
            stdout=None,
            tail_lines=_TAIL_LINES,
        ) as process:
            status = process.wait()
            said = process.stderr_tail()
            if status != 0:
                raise _failed(status, said, toc)
        if said:
            self.messages += [line for line in without_statements(said) if line]


def _failed(status: int, said: str, toc: Toc) -> RestoreError:
    failure = read_failure(said, toc.entries)
    what = described(failure.entry, toc.encoding) if failure.entry else None
    how = f"was ended by signal {-status}" if status < 0 else "failed"
    return RestoreError(
        f"pg_restore {how}{f' at {what}' if what else ''}: {failure.message or f'exit status {status}'}",
        exit_status=status,
        stderr_tail="\n".join(without_statements(said)),
        object=what,
    )
