"""Recording what is done with repositories: the one seam between the use cases and the audit trail.

Whoever lets people in (the frame of commands, a run of a plan, later a page) begins an ``Access`` and makes it the current one
with ``recording()``. ``open_repository()`` tells it of every repository that is opened, so that no use case can forget to;
what a use case adds with ``note_access()`` makes the entry say more.

The trail never stands between a user and the data: whatever goes wrong with it becomes a warning.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pgstow.app.who import Who, who_of
from pgstow.audit.anchoring import LockObject, anchor_when_due
from pgstow.audit.entries import HAD_SECRETS, STORE_TLS, AuditEntry, Result
from pgstow.audit.journal import Journal
from pgstow.audit.trail import SignedEntry
from pgstow.audit.writing import Sight, look, send, write
from pgstow.core.errors import Interrupted, PgstowError, StateError
from pgstow.repository import Repository
from pgstow.state.folder import state_folder
from pgstow.store.tls import negotiated_tls

__all__ = [
    "Access",
    "Who",
    "current_access",
    "journal_of",
    "note_access",
    "object_lock_of",
    "opened",
    "opening",
    "recording",
    "recording_step",
    "who_of",
]

_PATIENCE_S = 10.0  # for the store, at the end of a command; what it did not take by then waits here
_PATIENCE_WHEN_STOPPED_S = 2.0  # where somebody wants the command to end
_LONGEST_FACT = 500
_MOST_SUBJECTS = 200
ANCHORS_LOCKED = timedelta(days=400)
_SETTINGS = "settings"

_current: ContextVar[Access | None] = ContextVar("access", default=None)


def journal_of(environ: Mapping[str, str]) -> Journal:
    """Return what this host keeps of its audit trail."""
    key_file = environ.get("PGSTOW_AUDIT_KEY_FILE")
    return Journal(state_folder(environ) / "audit", key_file=Path(key_file) if key_file else None)


def current_access() -> Access | None:
    """Return the access that is under way, if somebody records it."""
    return _current.get()


def note_access(
    *, subjects: Sequence[str] = (), database_user: str | None = None, **facts: str | int | None
) -> None:
    """Add to what the entry of the current access says. Never a secret."""
    if (access := _current.get()) is not None:
        access.says(subjects=subjects, database_user=database_user, facts=facts)


@contextlib.contextmanager
def recording(access: Access | None) -> Iterator[None]:
    """Make an access the current one for a block; None: what is done in it is not recorded."""
    token = _current.set(access)
    try:
        yield
    finally:
        _current.reset(token)


@contextlib.contextmanager
def recording_step(
    action: str, *, is_destructive: bool = False, subjects: Sequence[str] = (), **facts: str | int | None
) -> Iterator[Access | None]:
    """Record one of several things that the current access does as an access of its own; None if nobody records."""
    if (outer := _current.get()) is None:
        yield None
        return
    step = outer.step(action, is_destructive=is_destructive, **facts)
    step.says(subjects=subjects)
    try:
        with recording(step):
            yield step
        step.finish(*step.ending)
    except Interrupted as exc:
        step.finish("interrupted", exc.code)
        raise
    except PgstowError as exc:
        step.finish("failed", exc.code)
        raise
    except Exception:
        step.finish("failed", "internal")
        raise
    finally:
        step.settle()


@contextlib.contextmanager
def opening(location: str) -> Iterator[None]:
    """Note what is opened in a block: if that fails, the attempt is recorded once the repository can be opened."""
    access = _current.get()
    try:
        yield
    except PgstowError:
        if access is not None:
            access.tried(location)
        raise


def opened(repository: Repository, environ: Mapping[str, str]) -> None:
    """Note a repository that was opened; ``environ`` leads to its store."""
    if (access := _current.get()) is not None:
        access.opened(repository, environ)


class Access:
    """One access to repositories, from when it begins until ``finish()``. Methods never raise for the trail's sake."""

    def __init__(
        self,
        action: str,
        *,
        who: Who,
        journal: Journal,
        is_destructive: bool = False,
        facts: Mapping[str, str] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        patience_s: float = _PATIENCE_S,
        scrub: Callable[[str], str] = lambda text: text,
    ) -> None:
        """Facts are said of every entry. What ``is_destructive`` has an entry before it begins, too.

        ``scrub`` blanks the secrets that are known when the entry is written.
        """
        self.action = action
        self.is_destructive = is_destructive
        self._who = who
        self._journal = journal
        self._facts: dict[str, str] = {**who.facts, **(facts or {})}
        self._subjects: dict[str, None] = {}
        self._database_user: str | None = None
        self._clock = clock
        self._patience_s = patience_s
        self._scrub = scrub
        self._give_up_at: float | None = None
        self._settings: tuple[str, str] | None = None
        self._tried: list[str] = []
        self._targets: dict[str, _Target] = {}
        self._senders: list[_Sender] = []
        self.ending: tuple[Result, str | None] = ("done", None)
        self.warnings: list[str] = []

    def ends(self, result: Result, error_code: str | None = None) -> None:
        """Say how a step ends that raises nothing."""
        self.ending = (result, error_code)

    def step(self, action: str, *, is_destructive: bool = False, **facts: str | int | None) -> Access:
        """Return an access for one of several things that are done in this one, with an entry of its own."""
        step = Access(
            action,
            who=self._who,
            journal=self._journal,
            is_destructive=is_destructive,
            facts=dict(self._facts),
            clock=self._clock,
            patience_s=self._patience_s,
            scrub=self._scrub,
        )
        step._settings = self._settings
        step.warnings = self.warnings
        step.says(facts=facts)
        return step

    def says(
        self,
        *,
        subjects: Sequence[str] = (),
        database_user: str | None = None,
        facts: Mapping[str, str | int | None] | None = None,
    ) -> None:
        """Add to what the entry will say; None says nothing."""
        self._subjects.update(dict.fromkeys(subjects))
        self._database_user = database_user or self._database_user
        for name, value in (facts or {}).items():
            if value is not None:
                self._facts[name] = str(value)

    def had_secrets(self) -> None:
        """Note that a password stood among the arguments, where others could see it for a moment."""
        self._facts[HAD_SECRETS] = "yes"

    def used_settings(self, path: Path, digest: str) -> None:
        """Note the settings file that is in force: an entry tells when it is another one than the last time."""
        self._settings = (str(path), digest)

    def opened(self, repository: Repository, environ: Mapping[str, str]) -> None:
        """Note a repository that was opened; its trail is looked at beside the work."""
        location = repository.store.location
        if repository.config_problem is not None:  # nobody knows its id
            self.tried(location)
        elif location not in self._targets:
            target = _Target(
                repository, environ, self._journal, self._clock(), asks_tls=self.action == "backup"
            )
            self._targets[location] = target
            if self.is_destructive:
                with self._careful():
                    self._write(target, "begun", None)
                self.settle()

    def tried(self, location: str) -> None:
        """Note a repository that could not be opened."""
        self._tried.append(location)

    def finish(self, result: Result, error_code: str | None = None) -> None:
        """Write down how it ended, on this host, and begin to send that; ``settle()`` waits until it is there."""
        if result == "interrupted":
            self._patience_s = min(self._patience_s, _PATIENCE_WHEN_STOPPED_S)
        with self._careful():
            for location in self._tried:
                document = {"at": self._clock().isoformat(), "result": result, **self._attempt(error_code)}
                self._journal.keep_attempt(location, json.dumps(document).encode())
        for target in self._targets.values():
            with self._careful():
                self._write(target, result, error_code)

    def settle(self) -> None:
        """Wait, not for long, until the repositories have the entries."""
        for sender in self._senders:
            has_ended = sender.ended.wait(self._left_s())
            self._warn(*sender.problems)
            if not has_ended:
                self._warn(sender.when_late)
        self._senders.clear()
        self._give_up_at = None

    def wait_for_sight(self) -> None:
        """Wait, not for long, until the trails of the repositories have been looked at."""
        for target in self._targets.values():
            target.sight(self._left_s())

    def hurry(self) -> None:
        """Wait for no store any more."""
        self._give_up_at = time.monotonic()

    def _left_s(self) -> float:
        """Return how long the store may still be waited for, all in all since the first wait."""
        now = time.monotonic()
        if self._give_up_at is None:
            self._give_up_at = now + self._patience_s
        return max(0.0, self._give_up_at - now)

    def _write(self, target: _Target, result: Result, error_code: str | None) -> None:
        sight = target.sight(self._left_s())
        before = [*self._earlier(target), *self._changed_settings(target)]
        draft = self._draft(result, error_code)  # after what came before, by its clock too
        if target.tls is not None:
            draft = replace(draft, facts={**draft.facts, STORE_TLS: target.tls})
        written = write(target.repository, self._journal, [*before, draft], sight)
        self._warn(*written.warnings)
        self._forget_earlier(target)
        sender = _Sender(target, self._journal, written.unkept, self._clock())
        self._senders.append(sender)
        sender.start()
        if written.unkept:  # nothing else has it: whether it arrived is part of what is told
            self.settle()

    def _draft(self, result: Result, error_code: str | None) -> AuditEntry:
        return AuditEntry(
            chain="",
            number=1,
            at=self._clock(),
            host=self._who.host,
            user=self._who.user,
            database_user=self._database_user,
            origin=self._said(self._who.origin) if self._who.origin else None,
            action=self.action,
            subjects=tuple(map(self._said, self._subjects))[:_MOST_SUBJECTS],
            result=result,
            error_code=error_code,
            facts=self._said_facts(),
        )

    def _said(self, text: str) -> str:
        """Return a text as an entry holds it; cut after its secrets are blanked, so that none is cut in two."""
        return self._scrub(text)[:_LONGEST_FACT]

    def _said_facts(self) -> dict[str, str]:
        return {name: self._said(text) for name, text in self._facts.items()}

    def _changed_settings(self, target: _Target) -> Iterator[AuditEntry]:
        """Yield the entry that the settings file is another one than this host last used here."""
        if self._settings is None:
            return
        path, digest = self._settings
        text = f"{digest} {path}"
        try:
            with self._journal.book(target.repository.id) as book:
                before = book.note(_SETTINGS)
                if before == text:
                    return
                book.remember(_SETTINGS, text)
        except StateError:  # without a memory every use would be the first
            return
        facts = {"file": path, "sha256": digest} | ({"before": before.split()[0]} if before else {})
        yield replace(
            self._draft("done", None), action="config", subjects=(), facts={**self._who.facts, **facts}
        )

    def _attempt(self, error_code: str | None) -> dict[str, object]:
        return {
            "user": self._who.user,
            "origin": self._said(self._who.origin) if self._who.origin else None,
            "action": self.action,
            "error_code": error_code,
            "facts": self._said_facts(),
        }

    def _earlier(self, target: _Target) -> Iterator[AuditEntry]:
        """Yield entries for what this host tried with the repository while it could not be opened."""
        with contextlib.suppress(StateError):
            target.attempts = self._journal.attempts(target.repository.store.location)
        for _, content in target.attempts:
            try:
                fields = json.loads(content)
                yield replace(
                    self._draft(fields["result"], fields["error_code"]),
                    user=str(fields["user"]),
                    origin=fields["origin"],
                    action=str(fields["action"]),
                    subjects=(),
                    facts={**fields["facts"], "happened": str(fields["at"]), "opened": "no"},
                )
            except (ValueError, KeyError, TypeError):
                continue  # not whole: it was never promised

    def _forget_earlier(self, target: _Target) -> None:
        for path, _ in target.attempts:
            self._journal.forget(path)
        target.attempts = []

    @contextlib.contextmanager
    def _careful(self) -> Iterator[None]:
        """Turn what goes wrong with the trail into a warning."""
        try:
            yield
        except Interrupted:
            raise
        except PgstowError as exc:
            self._warn(f"this access is not in the audit trail: {exc.message}")
        except Exception as exc:  # noqa: BLE001  not even a bug of ours may stand between a user and the data
            self._warn(f"this access is not in the audit trail: {type(exc).__name__}: {exc}")

    def _warn(self, *messages: str) -> None:
        self.warnings += [message for message in messages if message not in self.warnings]


def object_lock_of(location: str, environ: Mapping[str, str], *, now: datetime) -> LockObject:
    """Return what locks an object of this store, where it has Object Lock."""
    if not location.startswith("s3://"):
        return lambda _name: None

    def lock(name: str) -> datetime | None:
        # Imported here because botocore takes a third of a second, which no local repository should pay.
        from pgstow.store.object_lock import LockableBucket  # noqa: PLC0415

        return LockableBucket(location, environ).lock(name, now + ANCHORS_LOCKED)

    return lock


class _Target:
    """A repository of an access, and what its trail shows, which a thread looks up."""

    def __init__(
        self,
        repository: Repository,
        environ: Mapping[str, str],
        journal: Journal,
        now: datetime,
        *,
        asks_tls: bool = False,
    ) -> None:
        self.repository = repository
        self.tls: str | None = None  # what the store negotiates, once it is known: nobody waits for it
        self._asks_tls = asks_tls
        self.environ = environ
        self.attempts: list[tuple[Path, bytes]] = []
        self._journal = journal
        self._now = now
        self._sight: Sight | None = None
        self._has_looked = threading.Event()
        self.has_ended = threading.Event()
        threading.Thread(target=self._look, name="audit", daemon=True).start()

    def _look(self) -> None:
        # Without it the entry names no other heads, and a chain that two write shows only when the trail is verified.
        with contextlib.suppress(Exception):  # not even a bug of ours may put a traceback beside a result
            self._sight = look(self.repository, self._journal, now=self._now)
        self._has_looked.set()
        if self._asks_tls:
            with contextlib.suppress(Exception):  # as above; the entry says nothing of it then
                self.tls = negotiated_tls(self.repository.store.location, self.environ)
        self.has_ended.set()

    def sight(self, patience_s: float) -> Sight | None:
        self._has_looked.wait(patience_s)
        return self._sight


class _Sender(threading.Thread):
    """Sends what waits for a repository, and an anchor when one is due."""

    def __init__(
        self, target: _Target, journal: Journal, unkept: Sequence[SignedEntry], now: datetime
    ) -> None:
        super().__init__(name="audit", daemon=True)
        # Not join(): a thread whose join() a signal interrupts counts as ended from then on (Python 3.11, bpo-45274).
        self.ended = threading.Event()
        self.location = target.repository.store.location
        self.problems: list[str] = []
        self._target = target
        self._journal = journal
        self._unkept = unkept
        self._now = now

    @property
    def when_late(self) -> str:
        """What is told when it takes too long."""
        if self._unkept:
            return (
                f"this access may not be in the audit trail: {self.location} has not taken the entry by now"
            )
        return f"{self.location} does not take the audit entry now: it waits here for the next command"

    def run(self) -> None:
        try:
            self._send()
        finally:
            self.ended.set()

    def _send(self) -> None:
        try:
            send(self._target.repository, self._journal, self._unkept)
        except PgstowError as exc:
            if self._unkept:
                self.problems.append(f"this access is not in the audit trail: {exc.message}")
            else:
                self.problems.append(f"the audit entry waits on this machine: {exc.message}")
            return
        except Exception as exc:  # noqa: BLE001  not even a bug of ours may stand between a user and the data
            self.problems.append(f"the audit trail: {type(exc).__name__}: {exc}")
            return
        try:  # once a day, whatever becomes of it: the next one is due tomorrow
            lock = object_lock_of(self.location, self._target.environ, now=self._now)
            anchor_when_due(self._target.repository, self._journal, now=self._now, lock=lock)
        except Exception as exc:  # noqa: BLE001  the entry itself is there
            why = exc.message if isinstance(exc, PgstowError) else f"{type(exc).__name__}: {exc}"
            self.problems.append(f"the heads of the audit trail were not anchored today: {why}")
