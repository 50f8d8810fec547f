"""What a drill is asked to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pgstow.assurance.drill.selection import Strategy
from pgstow.catalog.assertions import Assertion
from pgstow.core.errors import UsageError
from pgstow.postgres.conninfo import ConnInfo

__all__ = ["DrillRequest", "DrillTerms", "Strategy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillTerms:
    """What the settings say of a database, for whichever backup of it is chosen. What the request says wins."""

    assertions: tuple[Assertion, ...] = ()
    optional_extensions: frozenset[str] = frozenset()
    rto_target_s: float | None = None
    rpo_target_s: float | None = None
    is_partial: bool = False  # the settings leave something out: its backups are partial by intent


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillRequest:
    """``backup`` names one (as for restore), or ``strategy`` chooses among those of ``database`` and ``kind``.

    ``server`` is where a database is made for the drill, and dropped after it; None: a throwaway server of this machine.
    ``state_folder`` takes the record while it cannot be saved in the repository; None: there is nowhere to put it.
    """

    backup: str | None = None
    strategy: Strategy = "latest"
    database: str | None = None
    kind: str | None = None
    seed: str | None = None  # of the strategy random; None: a new one
    server: ConnInfo | None = None
    assertions: tuple[Assertion, ...] = ()
    optional_extensions: frozenset[str] = frozenset()
    jobs: int = 2
    rto_target_s: float | None = None
    rpo_target_s: float | None = None
    terms: Mapping[str, DrillTerms] = field(default_factory=dict)  # by the name of the database's backups
    notes: str | None = None
    plan: str | None = None
    state_folder: Path | None = None
    server_path: str = (
        ""  # where server programs are looked for besides their usual folders: the value of PATH
    )
    host: str
    username: str

    def check(self) -> None:
        """UsageError where choices contradict each other."""
        if self.backup is not None and (self.database is not None or self.kind is not None):
            raise UsageError(
                "a backup is named, and --database or --kind is to choose one", hint="give one of the two"
            )
        if self.jobs < 1:
            raise UsageError(f"--jobs is {self.jobs}", hint="give at least 1")

    @property
    def asks_for_newest(self) -> bool:
        """Whether it is the newest backup that is drilled: of an older one the age says nothing about what a loss would cost."""
        if self.backup is None:
            return self.strategy == "latest"
        return self.backup == "latest" or self.backup.endswith("@latest")

    @property
    def partial_by_intent(self) -> frozenset[str]:
        """The names of databases whose backups are whole in the sense of their settings, and yet partial."""
        return frozenset(name for name, terms in self.terms.items() if terms.is_partial)

    def for_backups_of(self, name: str) -> DrillRequest:
        """Return the request with what the settings say of the database whose backup was chosen."""
        terms = self.terms.get(name)
        if terms is None:
            return self
        own = {assertion.name for assertion in self.assertions}
        rpo_target_s = terms.rpo_target_s if self.asks_for_newest else None
        return replace(
            self,
            assertions=self.assertions + tuple(one for one in terms.assertions if one.name not in own),
            optional_extensions=self.optional_extensions | terms.optional_extensions,
            rto_target_s=terms.rto_target_s if self.rto_target_s is None else self.rto_target_s,
            rpo_target_s=rpo_target_s if self.rpo_target_s is None else self.rpo_target_s,
        )
