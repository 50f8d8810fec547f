"""What a careful operator looks at every day, week and month, judged from the facts.

An *item* passes, fails or is unknown, with its evidence. Unknown is never a pass.
"""

from __future__ import annotations

from pgstow.monitor.checklists.items import Canary, Checklist, ChecklistFacts, Item, Period, Result
from pgstow.monitor.checklists.whole import checklist

__all__ = ["Canary", "Checklist", "ChecklistFacts", "Item", "Period", "Result", "checklist"]
