"""Looking at the databases of the settings: what status and checklists have in common."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pgstow.app.observation import History, observe, opened_history
from pgstow.config.settings import Settings
from pgstow.core.errors import UsageError
from pgstow.monitor.facts import Facts

__all__ = ["Look"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """At ``databases``, or at all without any. ``note`` hears of passing failures, ``conceal`` of every secret that is used."""

    settings: Settings
    environ: Mapping[str, str]
    now: datetime
    databases: Sequence[str] = ()
    note: Callable[[str], None]
    conceal: Callable[[str], None]

    @contextlib.contextmanager
    def facts(self, *, with_contents: bool, with_upkeep: bool = False) -> Iterator[tuple[History, Facts]]:
        """Give what is known, and the history it is from; see ``observe()``. UsageError for a name that the settings do not have."""
        self._refuse_unknown()
        with opened_history(self.settings, self.environ) as history:
            facts = observe(
                self.settings,
                self.environ,
                history,
                now=self.now,
                databases=self.databases,
                with_contents=with_contents,
                with_upkeep=with_upkeep,
                note=self.note,
                conceal=self.conceal,
            )
            yield history, facts

    def _refuse_unknown(self) -> None:
        """Silence about a name that is not there would look like health."""
        unknown = [name for name in self.databases if name not in self.settings.databases]
        if unknown:
            raise UsageError(
                f"the settings have no database called {', '.join(unknown)}",
                hint=f"there are: {', '.join(self.settings.databases)}",
            )
