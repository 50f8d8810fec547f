"""The settings of a server that are not at PostgreSQL's own defaults, without values that may be secret.

A number, a switch or a choice holds no secret. A text may: a password in ``primary_conninfo``, a key in a command, whatever an
extension keeps in a setting of its own. So of texts only those below are taken with their values, and of all others is said that
they are set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pgstow.postgres.raw import RawSession

__all__ = ["Configuration", "Setting", "differing_in_results", "read_configuration"]

# For all sessions, or for all of the database. What is set for a role stands in globals.sql.
_SOURCES = {b"environment variable", b"configuration file", b"command line", b"global", b"database"}
_TEXTS_WITHOUT_SECRETS = {
    "DateStyle", "TimeZone", "archive_library", "backtrace_functions", "bonjour_name", "cluster_name", "config_file",
    "createrole_self_grant", "data_directory", "debug_io_direct", "default_table_access_method", "default_tablespace",
    "default_text_search_config", "dynamic_library_path", "event_source", "extension_control_path", "external_pid_file",
    "hba_file", "ident_file", "jit_provider", "krb_server_keyfile", "lc_messages", "lc_monetary", "lc_numeric", "lc_time",
    "listen_addresses", "local_preload_libraries", "log_connections", "log_destination", "log_directory", "log_filename",
    "log_line_prefix", "log_timezone", "oauth_validator_libraries", "primary_slot_name", "recovery_target_timeline",
    "restrict_nonsystem_relation_kind", "search_path", "session_preload_libraries", "shared_preload_libraries", "ssl_ca_file",
    "ssl_cert_file", "ssl_ciphers", "ssl_crl_dir", "ssl_crl_file", "ssl_dh_params_file", "ssl_ecdh_curve", "ssl_groups",
    "ssl_key_file", "ssl_tls13_ciphers", "synchronized_standby_slots", "synchronous_standby_names", "syslog_ident",
    "temp_tablespaces", "timezone_abbreviations", "unix_socket_directories", "unix_socket_group", "wal_consistency_checking",
}  # fmt: skip
_TEXT = b"string"
# What a query gives, or what a statement does, may depend on these.
_CHANGES_RESULTS = (
    "DateStyle", "IntervalStyle", "TimeZone", "array_nulls", "backslash_quote", "bytea_output", "default_table_access_method",
    "default_text_search_config", "default_transaction_isolation", "default_transaction_read_only", "extra_float_digits",
    "lc_monetary", "lc_numeric", "lc_time", "lo_compat_privileges", "local_preload_libraries", "quote_all_identifiers",
    "row_security", "search_path", "session_preload_libraries", "session_replication_role", "shared_preload_libraries",
    "standard_conforming_strings", "timezone_abbreviations", "transform_null_equals", "xmlbinary", "xmloption",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A setting as SHOW prints it, with its unit; ``value`` None: it is set, and what to may be a secret."""

    name: str
    value: str | None
    source: str  # as pg_settings names it


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """Settings that are not at their defaults, by name. ``is_complete``: the role may see all that there are."""

    settings: tuple[Setting, ...]
    is_complete: bool


def read_configuration(session: RawSession) -> Configuration:
    """Return the settings of the session's server and database. What the session itself has set is not seen.

    So it runs with the search path of the server, and there is no operator in the queries that the path could replace.
    """
    rows = session.rows(
        b"SELECT name, setting, boot_val, vartype, source, pg_catalog.current_setting(name) FROM pg_catalog.pg_settings",
        doing="reading settings",
    )
    settings = []
    for name, value, default, kind, source, shown in rows:
        if source in _SOURCES and value != default:
            text = session.decode(name)
            is_open = kind != _TEXT or text in _TEXTS_WITHOUT_SECRETS
            settings.append(
                Setting(
                    name=text,
                    value=session.decode(shown) if is_open else None,
                    source=session.decode(source),
                )
            )
    sees_all = session.value(
        b"SELECT pg_catalog.pg_has_role('pg_read_all_settings', 'USAGE')", doing="looking at the role"
    )
    return Configuration(
        settings=tuple(sorted(settings, key=lambda one: one.name)), is_complete=sees_all == b"t"
    )


def differing_in_results(
    there: Mapping[str, str | None], here: Mapping[str, str | None]
) -> Iterator[tuple[str, str, str]]:
    """Yield name, value there and value here of settings that differ and on which results may depend.

    Both hold what is not at its default; what one of them lacks is at its default there.
    """
    for name in _CHANGES_RESULTS:
        if there.get(name) != here.get(name):
            yield name, there.get(name) or "the default", here.get(name) or "the default"
