"""What every test can ask for: PostgreSQL servers, databases, restic, an S3 server.

Servers start when the first test asks and are shared by the tests of one worker; each test gets databases of
its own. What a test needs and this machine lacks is a failure, never a skip.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import psycopg
import pytest
from moto.server import ThreadedMotoServer
from psycopg import sql

from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster, ServerBinaries, find_servers
from pgstow.postgres.tools import ClientTools, find_tools
from support.cheap_keys import make_keys_cheap
from support.made_servers import OriginalServers, copy_servers
from support.restic import Restic, find_restics
from support.s3 import S3Bucket

ROOT = Path(__file__).parent.parent
TOOLS = ROOT / ".tools"  # scripts/install-test-tools fills it
FOLDERS = ("unit", "contract", "integration", "acceptance", "bench")
OUR_SETTINGS = frozenset(
    {
        "PGSTOW_ALL_FAULTS",
        "PGSTOW_ALL_RELEASES",
        "PGSTOW_FAULTS_REPORT",
        "PGSTOW_TEST_EXAMPLES",
        "PGSTOW_WHOLE_IMAGE",
    }
)  # what tests themselves read
FOREIGN_SETTINGS = ("PG", "AWS_", "AZURE_", "GOOGLE_", "RESTIC_", "PGSTOW_")

# Every release we promise to work with. scripts/install-test-tools may find that one cannot be had on this
# machine and writes down why; any other that is missing fails its tests.
_PATH = os.environ.get("PATH", "")
_EXTRA_BIN_DIRS = sorted(
    folder.parent
    for pattern in ("postgresql-*/usr/lib/postgresql/*/bin/initdb", "postgresql-*/bin/initdb")
    for folder in TOOLS.glob(pattern)
)
_SERVERS = find_servers(_PATH, extra=_EXTRA_BIN_DIRS)
_UNAVAILABLE = TOOLS / "unavailable"
UNAVAILABLE = _UNAVAILABLE.read_text().splitlines() if _UNAVAILABLE.exists() else []
MAJORS = [
    major
    for major in (14, 15, 16, 17, 18)
    if not any(line.startswith(f"postgresql-{major}\t") for line in UNAVAILABLE)
]
OUTER_MAJORS = MAJORS if os.environ.get("PGSTOW_ALL_RELEASES") else sorted({*MAJORS[:1], *MAJORS[-1:]})

SMALL_SERVER = {
    "shared_buffers": "32MB",
    "max_connections": "60",
    "max_locks_per_transaction": "1024",
    "max_wal_senders": "5",
    "max_prepared_transactions": "5",
    "wal_level": "logical",
    "max_wal_size": "256MB",
    "log_min_messages": "warning",
}

# The same examples each time, so that a change is judged by itself; PGSTOW_TEST_EXAMPLES looks for others. How long an
# example takes says more about the machine than about us.
hypothesis.settings.register_profile(
    "pgstow",
    deadline=None,
    print_blob=True,
    derandomize="PGSTOW_TEST_EXAMPLES" not in os.environ,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("pgstow")
make_keys_cheap()
copy_servers()


def pytest_configure(config: pytest.Config) -> None:
    """Forget what the caller's environment says about databases, stores and repositories."""
    for folder in FOLDERS:
        config.addinivalue_line("markers", f"{folder}: tests/{folder}")
    for name in [name for name in os.environ if name.startswith(FOREIGN_SETTINGS)]:
        if name not in OUR_SETTINGS:
            del os.environ[name]
    if not hasattr(config, "workerinput"):
        originals = OriginalServers()
        config.add_cleanup(originals.remove)


def pytest_report_header() -> list[str]:
    """Say what is left out, so that a shorter run is not mistaken for a full one."""
    return [f"not tested here: {line}".expandtabs(1) for line in UNAVAILABLE]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test by its folder."""
    for item in items:
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        if folder in FOLDERS:
            item.add_marker(folder)


# -- PostgreSQL


def server_binaries(major: int) -> ServerBinaries:
    """Return the server of this major release; the test fails when there should be one and is none."""
    for server in _SERVERS:
        if server.version[0] == major:
            return server
    for line in UNAVAILABLE:
        if line.startswith(f"postgresql-{major}\t"):
            pytest.skip(line.expandtabs(1))
    pytest.fail(f"PostgreSQL {major} is not installed; run scripts/install-test-tools", pytrace=False)


def _shared(major: int) -> Any:
    @pytest.fixture(scope="session", name=f"pg{major}")
    def fixture() -> Iterator[Cluster]:
        with Cluster(server_binaries(major), settings=SMALL_SERVER) as cluster:
            yield cluster

    return fixture


pg14, pg15, pg16, pg17, pg18 = (_shared(major) for major in (14, 15, 16, 17, 18))


@pytest.fixture(scope="session", params=MAJORS, ids=lambda major: f"pg{major}")
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """Every server release there is, one after the other; shared, so do not stop it."""
    shared: Cluster = request.getfixturevalue(f"pg{request.param}")
    return shared


@pytest.fixture(scope="session", params=OUTER_MAJORS, ids=lambda major: f"pg{major}")
def outer_cluster(request: pytest.FixtureRequest) -> Cluster:
    """The oldest and the newest release, for what those between them have no say in: other tests ask each of them.

    PGSTOW_ALL_RELEASES=1 asks them here as well.
    """
    shared: Cluster = request.getfixturevalue(f"pg{request.param}")
    return shared


@pytest.fixture
def make_cluster() -> Iterator[Callable[..., Cluster]]:
    """Start servers of this test's own: ``make_cluster(15, settings={...}, tcp=..., standby_of=...)``."""
    with _clusters() as make:
        yield make


@pytest.fixture(scope="module")
def make_module_cluster() -> Iterator[Callable[..., Cluster]]:
    """Start servers of this module's own."""
    with _clusters() as make:
        yield make


@contextlib.contextmanager
def _clusters() -> Iterator[Callable[..., Cluster]]:
    with contextlib.ExitStack() as stack:

        def make(major: int, *, settings: dict[str, str] | None = None, **options: Any) -> Cluster:
            merged = {**SMALL_SERVER, **(settings or {})}
            return stack.enter_context(Cluster(server_binaries(major), settings=merged, **options))

        yield make


_numbers = itertools.count(1)


@contextlib.contextmanager
def _databases() -> Iterator[Callable[..., ConnInfo]]:
    made: list[tuple[Cluster, str]] = []

    def make(cluster: Cluster, name: str | None = None, *, options: str = "") -> ConnInfo:
        name = name or f"test_{next(_numbers)}"
        if cluster.version[0] >= 15:
            options += " STRATEGY FILE_COPY"  # as 14 does; the other one takes six times as long
        with psycopg.connect(cluster.conninfo(), autocommit=True) as admin:
            admin.execute(sql.SQL("CREATE DATABASE {} {}").format(sql.Identifier(name), sql.SQL(options)))
        made.append((cluster, name))
        return ConnInfo.parse(cluster.conninfo(name))

    yield make
    for cluster, name in made:
        if cluster.is_running:
            with psycopg.connect(cluster.conninfo(), autocommit=True) as admin:
                admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def database() -> Iterator[Callable[..., ConnInfo]]:
    """Make databases that are gone after the test: ``database(cluster)`` returns where it is.

    ``name`` for hostile names, ``options`` for the rest of CREATE DATABASE, for instance
    ``options="ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"``.
    """
    with _databases() as make:
        yield make


@pytest.fixture(scope="session")
def shared_database() -> Iterator[Callable[..., ConnInfo]]:
    """Make databases that last as long as their servers, for fixtures that tests only read from."""
    with _databases() as make:
        yield make


# -- programs


@pytest.fixture(scope="session")
def restic_binaries() -> list[Restic]:
    """restic 0.14 and 0.18, the oldest and the newest release we promise to be read by."""
    found = find_restics(TOOLS)
    left_out = sum(line.startswith("restic-") for line in UNAVAILABLE)
    if len(found) < max(1, 2 - left_out):
        pytest.fail("two releases of restic are needed; run scripts/install-test-tools", pytrace=False)
    return found


@pytest.fixture(scope="session")
def client_tools() -> list[ClientTools]:
    """Every set of pg_dump, pg_restore and pg_dumpall there is, for ``pick``."""
    return find_tools(_PATH, extra=_EXTRA_BIN_DIRS)


@pytest.fixture(params=["oldest", "newest"])
def restic(request: pytest.FixtureRequest, restic_binaries: list[Restic]) -> Restic:
    """Each restic release in turn."""
    return restic_binaries[0] if request.param == "oldest" else restic_binaries[-1]


@pytest.fixture
def newest_restic(restic_binaries: list[Restic]) -> Restic:
    """The newest restic only, where one judge is enough."""
    return restic_binaries[-1]


# -- S3


def _serialize(server: ThreadedMotoServer) -> None:
    """Let the server answer one request at a time: two conditional puts at once may both succeed, and reads fail.

    It has read the whole request by then. One that is answered before that (the bucket is not there) may arrive when
    the connection has been closed, and who sent it finds the connection broken instead of the answer; and one whose
    sender has stopped would keep all others waiting.
    """
    inner = server._server
    assert inner is not None
    answer, one_at_a_time = inner.app, threading.Lock()

    def serialized(environ: Any, start_response: Any) -> Any:
        if "wsgi.input_terminated" in environ:  # in chunks
            environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read())
        elif length := int(environ.get("CONTENT_LENGTH") or 0):
            environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(length))
        with one_at_a_time:
            return answer(environ, start_response)

    inner.app = serialized


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Return the address of an S3 server that lives in this process but is spoken to over HTTP."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _serialize(server)
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_bucket(s3_server: str) -> S3Bucket:
    """Return a fresh bucket on the S3 server."""
    bucket = S3Bucket(f"bucket-{os.getpid()}-{next(_numbers)}", s3_server)
    bucket.client().create_bucket(Bucket=bucket.name)
    return bucket
