"""The configuration of the server, as far as the role of the backup sees it."""

from __future__ import annotations

import contextlib

from pgstow.catalog.manifest import ConfigurationRecord, SettingRecord
from pgstow.core.errors import PostgresError
from pgstow.postgres.configuration import read_configuration
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.raw import open_raw

__all__ = ["capture_configuration"]

_UNSEEN = "settings that only members of pg_read_all_settings may see"


def capture_configuration(source: ConnInfo, *, encoding: str) -> ConfigurationRecord:
    """Return what is set on the server and for the database, asked by a session that sets nothing itself.

    A failure is recorded, not raised: the data of the database does not depend on it.
    """
    try:
        with contextlib.closing(open_raw(source, encoding=encoding, settings={})) as session:
            found = read_configuration(session)
    except PostgresError as exc:
        return ConfigurationRecord(is_captured=False, missing=(exc.message,))
    return ConfigurationRecord(
        is_captured=True,
        is_complete=found.is_complete,
        settings=tuple(
            SettingRecord(name=one.name, value=one.value, source=one.source) for one in found.settings
        ),
        missing=() if found.is_complete else (_UNSEEN,),
    )
