"""The queue of runs, kept by DBOS Transact in a database: all that pgstow knows of DBOS is in this module.

Of DBOS only the queue is used: an order is a workflow whose id says which run it is, so that it is queued once however
many hosts propose it, and started by one. What becomes of runs whose host died is decided by ``service``, not by DBOS:
executor ids are never used twice, so it finds nothing to recover when it starts.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer, SetWorkflowID

from pgstow.core.errors import StateError
from pgstow.jobs.dispatch import SHAPE, Order, Standing
from pgstow.state.database import StateDatabase
from pgstow.state.dues import DueKey

__all__ = ["Engine"]

_NAME = "pgstow"
_QUEUE = "pgstow-runs"
_SCHEMA = "pgstow_queue"
_POLL_S = 1.0
_VERSION = "pgstow-"
_WITHDRAWN = ("DBOSWorkflowCancelledError", "DBOSAwaitedWorkflowCancelledError")
_ENDED: list[str] = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]


class Engine:
    """The queue, and this host's workers: as many threads as ``workers`` call ``carry_out`` with orders. A Dispatcher."""

    def __init__(
        self,
        state: StateDatabase,
        *,
        host_id: str,
        workers: int,
        carry_out: Callable[[Order], object],
        note: Callable[[str], None],
        shape: int = SHAPE,
    ) -> None:
        _divert_log(note)
        self._dbos = DBOS(config=_config(state, host_id, shape))
        self._workers = workers

        @DBOS.workflow(name="run")
        def run(plan: str, database: str | None, due: str, attempt: int) -> None:
            key = DueKey(plan=plan, database=database, due=datetime.fromisoformat(due))
            carry_out(Order(key=key, attempt=attempt))

        self._run = run

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Take orders from the queue for the length of a block. StateError if its database cannot be had."""
        try:
            DBOS.listen_queues([_QUEUE])
            DBOS.launch()
            DBOS.register_queue(_QUEUE, worker_concurrency=self._workers, polling_interval_sec=_POLL_S)
        except Exception as exc:  # whatever it is, the service cannot start
            raise StateError(
                f"the queue of runs cannot be opened: {type(exc).__name__}: {_first_line(exc)}"
            ) from exc
        try:
            yield
        finally:
            DBOS.destroy()

    def take_no_more(self) -> None:
        """Leave what is queued to other hosts, while what was taken goes on."""
        for event in self._dbos.background_thread_stop_events:
            event.set()

    def submit(self, order: Order) -> None:
        """Queue an order; one that was queued before, by whichever host, is left as it is."""
        key = order.key
        with SetWorkflowID(order.id):
            DBOS.enqueue_workflow(
                _QUEUE, self._run, key.plan, key.database, key.due.isoformat(), order.attempt
            )

    def standing(self, orders: Sequence[Order]) -> Mapping[str, Standing]:
        """Return where orders stand, by id; those that were never queued are missing."""
        if not orders:
            return {}
        found = DBOS.list_workflows(
            workflow_ids=[order.id for order in orders], load_input=False, load_output=False
        )
        return {
            one.workflow_id: Standing(
                state="queued"
                if one.status in ("ENQUEUED", "DELAYED")
                else "started"
                if one.status == "PENDING"
                else "ended",
                host=one.executor_id,
                shape=_shape(one.app_version),
            )
            for one in found
        }

    def withdraw(self, order: Order) -> None:
        """End an order that nobody will carry out any more."""
        DBOS.cancel_workflow(order.id)

    def forget(self, *, before: datetime, most: int) -> int:
        """Remove ended orders that were queued before that moment, at most so many; return how many there were."""
        old = DBOS.list_workflows(
            status=_ENDED, end_time=before.isoformat(), limit=most, load_input=False, load_output=False
        )
        if old:
            DBOS.delete_workflows([one.workflow_id for one in old])
        return len(old)


def _config(state: StateDatabase, host_id: str, shape: int) -> DBOSConfig:
    url = state.url
    if not state.is_shared:  # a file of its own: its transactions and ours need not wait for each other
        assert url.database is not None
        url = url.set(database=str(Path(url.database).with_name("queue.db")))
    return {
        "name": _NAME,
        "system_database_url": url.render_as_string(hide_password=False),
        "dbos_system_schema": _SCHEMA,
        "application_version": f"{_VERSION}{shape}",
        "executor_id": host_id,
        "serializer": DBOSPortableJSONSerializer(),
        "log_level": "ERROR",
        "enable_otlp": False,
        "conductor_key": None,
        "sys_db_pool_size": 5,
        "use_listen_notify": False,  # a connection that is held for nothing we use
    }


def _shape(version: str | None) -> int:
    text = (version or "").removeprefix(_VERSION)
    return int(text) if text.isdigit() else 0


def _first_line(exc: Exception) -> str:
    return str(exc).strip().split("\n", 1)[0]


class _Notes(logging.Handler):
    """Tells errors as notes, each once until another comes: while a database is away they repeat by the second."""

    def __init__(self, note: Callable[[str], None]) -> None:
        super().__init__(logging.ERROR)
        self._note = note
        self._last = ""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if (
            type(error).__name__ in _WITHDRAWN
        ):  # by a host that took this one for dead; the run itself tells that
            return
        text = f"queue of runs: {record.getMessage()}".split("\n", 1)[0]
        if error is not None:
            text = f"{text} {type(error).__name__}: {error}".split("\n", 1)[0]
        if text != self._last:
            self._last = text
            self._note(text)


def _divert_log(note: Callable[[str], None]) -> None:
    """Keep DBOS from writing by itself: it adds a handler of its own where it finds none."""
    logger = logging.getLogger("dbos")
    logger.handlers = [_Notes(note)]
    logger.propagate = False
    logger.setLevel(logging.ERROR)
