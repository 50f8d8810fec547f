"""Reading SQL scripts as psql does, without psql: statements, its own commands, and rows behind COPY.

psql is no reader for what others wrote: its backslash commands run programs and read files. Here they are handed to the
caller, who knows the few that pg_dump writes. Where a statement ends is told as psql tells it; nothing is looked at
twice, and no more is held than the longest statement.

Source: PostgreSQL src/fe_utils/psqlscan.l, src/bin/psql/copy.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pgstow.core.errors import ArchiveError
from pgstow.postgres.archive import PIECE_BYTES, PieceReader

__all__ = ["Command", "SqlScript", "Statement"]

_LONGEST_BYTES = (1 << 30) - 1  # of a statement: the server takes no longer one
_LONGEST_WORD_BYTES = 1 << 16
_TOKEN = re.compile(rb"""--|/\*|['"$;\\()]|[A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*+|[0-9]++""")
_SPACE = re.compile(rb"[ \t\n\r\f\v]*+")
_TAG = re.compile(rb"\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*+)?\$")
_TAG_BEGUN = re.compile(rb"\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*+)?\Z")
_LINE_END = re.compile(rb"[\n\r]")
_NESTED = re.compile(rb"/\*|\*/")
_ESCAPED = re.compile(rb"['\\]")
_BETWEEN_PARTS = re.compile(rb"(?:[ \t\n\r\f\v]++|--[^\n\r]*+)*+")
_NEXT_PART = re.compile(rb"(?:[ \t\f\v]|--[^\n\r]*+)*+[\n\r](?:[ \t\n\r\f\v]++|--[^\n\r]*+[\n\r])*+'")
_MARKED = re.compile(rb"\\\.\r?(?:\n|\Z)")
_MARKED_LATER = re.compile(rb"\n\\\.\r?(?:\n|\Z)")
_MARK_BYTES = len(b"\n\\.\r\n")
_KEPT_WORDS = frozenset({b"create", b"or", b"replace", b"function", b"procedure"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement without the semicolon at its end; ``line`` is that of its first word, ``number`` counts from 1."""

    text: bytes
    line: int
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    r"""A command to psql, from its backslash to the end of the line."""

    text: bytes
    line: int


class _Unfinished(Exception):
    """The buffer ends before it can be told what comes."""


class SqlScript:
    """A script that is read once. ``standard_strings`` is the server's standard_conforming_strings, kept by the caller.

    After a COPY ... FROM stdin the caller takes ``rows()`` to their end. Raises ArchiveError.
    """

    def __init__(self, stream: PieceReader, *, name: str) -> None:
        self._stream = stream
        self._name = name
        self._buffer = bytearray()
        self._start = 0  # of what was not handed out yet
        self._is_over = False
        self._number = 0
        self.line = 1
        self.standard_strings = True

    def __iter__(self) -> Iterator[Statement | Command]:
        while (item := self._next()) is not None:
            yield item

    # -- statements

    def _next(self) -> Statement | Command | None:
        while True:
            self._skip_space()
            scan = _Scan(is_standard=self.standard_strings)
            end = self._find_end(scan)
            if end is None:
                self._refuse_rest(scan)
                return None
            if scan.is_command:
                return self._command(end, scan)
            if scan.first is not None:
                break
            self._consume(end + 1)  # a semicolon alone
        text = bytes(self._buffer[self._start + scan.first : self._start + end])
        line = self.line + self._buffer.count(b"\n", self._start, self._start + scan.first)
        if b"\0" in text:  # where libpq would end the statement
            raise ArchiveError(
                f"{self._name}, line {line:,}: the statement holds a zero byte, as no SQL does"
            )
        self._consume(end + 1)
        self._number += 1
        return Statement(text=text, line=line, number=self._number)

    def _find_end(self, scan: _Scan) -> int | None:
        while True:
            try:
                return scan.advance(self._buffer, self._start, is_over=self._is_over)
            except _Unfinished:
                self._more(scan)

    def _refuse_rest(self, scan: _Scan) -> None:
        """Raise ArchiveError if the script ends within a statement."""
        if scan.first is not None or scan.is_inside:
            line = self.line + self._buffer.count(b"\n", self._start, self._start + (scan.first or 0))
            raise ArchiveError(
                f"{self._name} is cut off: the statement that begins in line {line:,} has no end",
                hint="copy the dump again, or make a new one",
            )

    def _command(self, at: int, scan: _Scan) -> Command:
        line = self.line + self._buffer.count(b"\n", self._start, self._start + at)
        if scan.first is not None:
            raise ArchiveError(
                f"{self._name}, line {line:,}: a backslash stands in the middle of a statement"
            )
        while (end := self._buffer.find(b"\n", self._start + at)) < 0 and self._more(scan):
            pass
        end = len(self._buffer) if end < 0 else end
        text = bytes(self._buffer[self._start + at : end]).rstrip(b"\r")
        self._consume(end - self._start)
        return Command(text=text, line=line)

    # -- rows

    def rows(self) -> Iterator[bytes]:
        r"""Yield what stands between the COPY statement that was handed out last and the line ``\.``."""
        self._end_of_line()
        is_line_start = True
        while True:
            found = self._end_of_rows(is_line_start=is_line_start)
            if found is not None:
                rows, after = found
                data = bytes(self._buffer[self._start : rows])
                self._consume(after - self._start)
                if data:
                    yield data
                return
            if self._is_over:
                self._consume(len(self._buffer) - self._start)
                raise ArchiveError(
                    f"{self._name} is cut off in line {self.line:,}: the rows of a table have no end",
                    hint="copy the dump again, or make a new one",
                )
            if (end := len(self._buffer) - _MARK_BYTES) > self._start:
                data = bytes(self._buffer[self._start : end])
                self._consume(end - self._start)
                is_line_start = data.endswith(b"\n")
                yield data
            self._more(None)

    def _end_of_rows(self, *, is_line_start: bool) -> tuple[int, int] | None:
        """Return where the rows end, and where what follows them begins; None if that is not in sight."""
        found = _MARKED.match(self._buffer, self._start) if is_line_start else None
        rows = self._start
        if found is None:
            found = _MARKED_LATER.search(self._buffer, self._start)
            rows = found.start() + 1 if found is not None else rows
        if found is None or (
            found.end() == len(self._buffer) and not found[0].endswith(b"\n") and not self._is_over
        ):
            return None
        return rows, found.end()

    def _end_of_line(self) -> None:
        while (end := self._buffer.find(b"\n", self._start)) < 0 and self._more(None):
            pass
        if end < 0 or self._buffer[self._start : end].strip():
            raise ArchiveError(f"{self._name}, line {self.line:,}: something else follows COPY in its line")
        self._consume(end + 1 - self._start)

    # -- the buffer

    def _skip_space(self) -> None:
        while True:
            found = _SPACE.match(self._buffer, self._start)
            assert found is not None
            self._consume(found.end() - self._start)
            if self._start < len(self._buffer) or not self._more(None):
                return

    def _consume(self, size: int) -> None:
        self.line += self._buffer.count(b"\n", self._start, self._start + size)
        self._start += size

    def _more(self, scan: _Scan | None) -> bool:
        """Read on; False at the end, which is only then known."""
        del self._buffer[: self._start]
        self._start = 0
        piece = self._stream.read1(PIECE_BYTES)
        if not piece:
            self._is_over = True
            return False
        self._buffer += piece
        if scan is not None and len(self._buffer) > _LONGEST_BYTES:
            raise ArchiveError(
                f"{self._name}: the statement that begins in line {self.line:,} is longer than 1 GiB"
            )
        return True


class _Scan:
    """Looks for the end of one statement. Positions count from the beginning of what is looked at."""

    def __init__(self, *, is_standard: bool) -> None:
        self._is_standard = is_standard
        self._parens = 0
        self._begins = 0
        self._words: list[bytes] = []
        self._inside: bytes | None = None  # ' E " -- or /* or the tag of a dollar quote
        self._depth = 0
        self.position = 0
        self.first: int | None = None  # where the first token is that is no comment
        self.is_command = False

    @property
    def is_inside(self) -> bool:
        return self._inside not in (None, b"--")

    def advance(self, buffer: bytearray, start: int, *, is_over: bool) -> int | None:
        """Return where the statement ends, None if it does not. Raises _Unfinished when more has to be read."""
        while True:
            if self._inside is not None and not self._leave(buffer, start, is_over=is_over):
                return None
            found = _TOKEN.search(buffer, start + self.position)
            # the last byte may be the first half of what begins a comment
            half = found is None and not is_over and buffer[start + self.position :].endswith((b"-", b"/"))
            self._note_first(buffer, start, found.start() if found else len(buffer) - half)
            if found is None:
                self.position = len(buffer) - start - half
                if is_over:
                    return None
                raise _Unfinished
            if found.end() == len(buffer) and not is_over and found[0] not in (b";", b"\\", b"(", b")"):
                self._wait(found.start() - start, found.end() - found.start())
            end = self._take(found, buffer, start, is_over=is_over)
            if end is not None:
                return end

    def _note_first(self, buffer: bytearray, start: int, until: int) -> None:
        """See whether anything but space stands before the next token: an operator, say."""
        if self.first is None:
            space = _SPACE.match(buffer, start + self.position)
            assert space is not None
            if space.end() < until:
                self.first = space.end() - start

    def _wait(self, position: int, size: int) -> None:
        if size > _LONGEST_WORD_BYTES:
            raise ArchiveError("a name is longer than 64 KiB, so this is no SQL")
        self.position = position
        raise _Unfinished

    def _take(self, found: re.Match[bytes], buffer: bytearray, start: int, *, is_over: bool) -> int | None:
        token, at = found[0], found.start() - start
        self.position = found.end() - start
        if token in (b"--", b"/*"):
            self._inside, self._depth = token, 1
            return None
        if token == b"\\":
            self.is_command = True
            return at
        if token == b";" and not self._parens and not self._begins:
            return at
        if self.first is None:
            self.first = at
        if token == b"(":
            self._parens += 1
        elif token == b")":
            self._parens -= self._parens > 0
        elif token == b"'":
            self._inside = b"'" if self._is_standard else b"E"
        elif token == b'"':
            self._inside = token
        elif token == b"$":
            self._dollar(buffer, start, at, is_over=is_over)
        elif token != b";" and not token.isdigit():
            self._word(token, buffer, start)
        return None

    def _word(self, word: bytes, buffer: bytearray, start: int) -> None:
        """Take a word. psql, too, tells by words which semicolons stand inside a function's body."""
        follows = buffer[start + self.position : start + self.position + 1]
        lower = word.lower()
        if follows == b"'" and lower in (b"e", b"b", b"x"):
            self._inside = b"E" if lower == b"e" else b"'"
            self.position += 1
            return
        if len(self._words) < 4:
            self._words.append(lower if lower in _KEPT_WORDS else b"")
        if self._parens or not self._is_routine:
            return
        if lower == b"begin":
            self._begins += 1
        elif lower == b"case":
            self._begins += self._begins > 0
        elif lower == b"end":
            self._begins -= self._begins > 0

    @property
    def _is_routine(self) -> bool:
        words = self._words
        if words[1:3] == [b"or", b"replace"]:
            words = [words[0], *words[3:]]
        return words[:1] == [b"create"] and words[1:2] in ([b"function"], [b"procedure"])

    def _dollar(self, buffer: bytearray, start: int, at: int, *, is_over: bool) -> None:
        tag = _TAG.match(buffer, start + at)
        if tag is not None:
            self._inside, self.position = tag[0], tag.end() - start
        elif not is_over and (begun := _TAG_BEGUN.match(buffer, start + at)) is not None:
            self._wait(at, begun.end() - begun.start())

    # -- quotes and comments

    def _leave(self, buffer: bytearray, start: int, *, is_over: bool) -> bool:
        """Get to the end of a quote or comment; False if there is none. Raises _Unfinished."""
        if self._inside == b"E":
            is_left = self._leave_escaped(buffer, start, is_over=is_over)
        elif self._inside == b"/*":
            is_left = self._leave_nested(buffer, start)
        else:
            is_left = self._leave_plain(buffer, start)
        if not is_left and not is_over:
            raise _Unfinished
        if is_left:
            self._inside = None
        return is_left

    def _leave_plain(self, buffer: bytearray, start: int) -> bool:
        if self._inside == b"--":
            found = _LINE_END.search(buffer, start + self.position)
            self.position = (found.end() if found else len(buffer)) - start
            return found is not None
        assert self._inside is not None
        at = buffer.find(self._inside, start + self.position)
        if at < 0:  # the beginning of a tag may be there
            self.position = max(self.position, len(buffer) - start - len(self._inside) + 1)
            return False
        self.position = at + len(self._inside) - start
        return True

    def _leave_nested(self, buffer: bytearray, start: int) -> bool:
        while (found := _NESTED.search(buffer, start + self.position)) is not None:
            self.position = found.end() - start
            self._depth += 1 if found[0] == b"/*" else -1
            if not self._depth:
                return True
        self.position = max(self.position, len(buffer) - start - 1)
        return False

    def _leave_escaped(self, buffer: bytearray, start: int, *, is_over: bool) -> bool:
        while (found := _ESCAPED.search(buffer, start + self.position)) is not None:
            at = found.start()
            if at + 1 >= len(buffer) and not is_over:
                self.position = at - start
                return False
            if found[0] == b"\\" or buffer[at + 1 : at + 2] == b"'":
                self.position = at + 2 - start
                continue
            # a string goes on in the next line, and its backslashes still mean what they meant
            between = _BETWEEN_PARTS.match(buffer, at + 1)
            assert between is not None
            if not is_over and bytes(buffer[between.end() : between.end() + 2]) in (b"", b"-"):
                self.position = at - start
                return False
            part = _NEXT_PART.match(buffer, at + 1)
            self.position = (part.end() if part else at + 1) - start
            if part is None:
                return True
        self.position = len(buffer) - start
        return False
