"""Settings files for tests: those that ship with the project, and a small one to change."""

from __future__ import annotations

import re
from pathlib import Path

from pgstow.config.reading import Reading, parse_settings

__all__ = ["EXAMPLES", "PAGE", "SMALL", "look", "reference_text", "told"]

_ROOT = Path(__file__).parent.parent.parent
PAGE = _ROOT / "docs" / "configuration.md"
EXAMPLES = sorted((_ROOT / "examples").glob("*/pgstow.yaml"))

SMALL = """\
databases:
  shop:
    url: postgresql://backup@db.example/shop
    critical: [ledger]
repositories:
  local:
    location: /srv/backups
    password: file:password
  offsite:
    location: s3://bucket/pgstow
    password: ${OFFSITE_PASSWORD}
    kinds: [daily]
plans:
  daily:
    schedule: 0 2 * * *
  critical:
    schedule: 0 */6 * * *
  retention: {}
  drill: {}
contacts:
  - name: on call
    channels: [slack]
channels:
  slack: ${SLACK_URL}
"""


def reference_text() -> str:
    """Return the whole form as the documentation shows it."""
    found = re.search(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def look(text: str) -> Reading:
    """Return what came of reading a file with this text."""
    return parse_settings(text.encode(), Path("/etc/pgstow/pgstow.yaml"))


def told(text: str) -> list[str]:
    """Return the errors of a file, each as ``LINE:COLUMN: PATH: message``."""
    return [problem.text("f")[2:] for problem in look(text).errors]
