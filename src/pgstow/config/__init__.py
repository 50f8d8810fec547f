"""The policy file pgstow.yaml: databases, repositories, plans, retention, alerts, contacts.

Untrusted text enters here, is checked by pydantic and becomes the frozen dataclasses of ``settings``; only app and cli read them.
"""

from __future__ import annotations

__all__: list[str] = []
