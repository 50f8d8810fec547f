"""Checking a bundle with nothing but an administrator's fingerprint: on another machine, without settings or repository.

The host's signature covers everything in the bundle; the administrator's says that it is a host of ours. What remains is
whether the host's report follows from its facts, and these from the drills and audit entries that come with them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from pgstow.audit.documents import Enrolment
from pgstow.audit.keys import canonical
from pgstow.core.errors import UsageError
from pgstow.evidence.agreement import attestation_problems, audit_problems, drill_problems
from pgstow.evidence.bundle import (
    ATTESTATIONS,
    AUDIT,
    FACTS,
    KEYS,
    MANIFEST,
    PAGE,
    REPORT,
    SIGNATURE,
    SIGNED_AS,
    BundleManifest,
    parse_keys,
    parse_manifest,
    parse_signature,
    strict_json,
)
from pgstow.evidence.controls import RULES
from pgstow.evidence.enrolments import Enrolled, enrolled_by
from pgstow.evidence.facts import FACTS_FORMAT, EvidenceFacts
from pgstow.evidence.packing import Packed
from pgstow.evidence.page import report_page
from pgstow.evidence.period import parse_period
from pgstow.evidence.problems import BundleProblem, BundleProblemKind
from pgstow.evidence.report import Report, judge, report_document

__all__ = ["NOT_CHECKED", "Verification", "verify_bundle"]

_NEEDED = (FACTS, REPORT, PAGE, AUDIT, KEYS)

# A bundle says nothing of these: whoever relies on it has to know.
NOT_CHECKED = (
    "whether the facts are true: they are the word of the host whose key signed them",
    "whether what people attest is true: it is shown who stated it and when, and that it was not changed since",
    "whether its clock was right when the report was made",
    "whether that key was revoked after the report was made",
    "whether records of drills are genuine: they carry no signature of their own",
    "whether the audit trail was written anew before the report: hold its heads against others (pgstow audit verify --anchors)",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What checking a bundle has shown. ``report`` is what the controls come to by its facts, None where these are unreadable.

    ``other_rules``: its facts were judged by rules that this version does not have, so that the report could not be held
    against them; everything else was checked.
    """

    problems: tuple[BundleProblem, ...]
    files: int
    signer: str | None = None
    enrolment: Enrolment | None = None
    report: Report | None = None
    other_rules: int | None = None

    @property
    def is_sound(self) -> bool:
        return not self.problems


def verify_bundle(packed: Packed, administrator: str) -> Verification:
    """Return what is wrong with a bundle; ``administrator`` is the fingerprint that is known from elsewhere."""
    checking = _Checking(packed, administrator)
    checking.run()
    return Verification(
        problems=tuple(checking.problems),
        files=len(packed.files),
        signer=checking.signer,
        enrolment=None if checking.signer is None else checking.enrolled.enrolled.get(checking.signer),
        report=checking.report,
        other_rules=checking.other_rules,
    )


class _Checking:
    """One pass over a bundle; every problem is told, not only the first."""

    def __init__(self, packed: Packed, administrator: str) -> None:
        self.files = packed.files
        self._strange = packed.strange
        self._administrator = administrator
        self.problems: list[BundleProblem] = []
        self.signer: str | None = None
        self.enrolled = Enrolled()
        self.report: Report | None = None
        self.other_rules: int | None = None

    def run(self) -> None:
        for name in self._strange:
            self._problem("extra", name, "no bundle has such a file")
        for name in (each for each in _NEEDED if each not in self.files):
            self._problem("missing", name, "the file is missing")
        manifest = self._manifest()
        self._read_keys()
        if manifest is not None:
            self._check_files(manifest)
            self._check_signature(manifest)
        facts = self._facts()
        if facts is None:
            return
        self._check_period(facts)
        if manifest is not None and (manifest.made, manifest.period) != (facts.made, facts.period.name):
            self._problem(
                "facts", FACTS, "they were made at another time or for another period than the manifest says"
            )
        try:
            self._check_judgement(facts)
        except (ArithmeticError, ValueError) as exc:  # times or numbers that no program of ours wrote
            self._problem("unreadable", FACTS, f"they cannot be judged: {exc}")
        self.problems += drill_problems(facts, self.files)
        if AUDIT in self.files:
            self.problems += audit_problems(facts, self.files[AUDIT], self.enrolled)
        self.problems += attestation_problems(facts, self.files.get(ATTESTATIONS), self.enrolled)

    def _manifest(self) -> BundleManifest | None:
        content = self.files.get(MANIFEST)
        if content is None:
            self._problem("missing", MANIFEST, "without it nothing says what belongs to the bundle")
            return None
        try:
            return parse_manifest(content)
        except ValueError as exc:
            self._problem("unreadable", MANIFEST, str(exc))
            return None

    def _check_files(self, manifest: BundleManifest) -> None:
        listed = manifest.files.keys()
        there = self.files.keys() - {MANIFEST, SIGNATURE}
        for name in sorted(there - listed):
            self._problem("extra", name, "the manifest does not list it")
        for name in sorted(listed - there - set(_NEEDED)):
            self._problem("missing", name, "the file is missing")
        for name in sorted(there & listed):
            entry, content = manifest.files[name], self.files[name]
            if (entry.sha256, entry.size_bytes) != (hashlib.sha256(content).hexdigest(), len(content)):
                self._problem("edited", name, "it is not what the manifest says")
        for name in (each for each in _NEEDED if each not in listed):
            self._problem("missing", name, "the manifest does not list it")

    def _read_keys(self) -> None:
        try:
            self.enrolled = enrolled_by(parse_keys(self.files.get(KEYS, b"null")), self._administrator)
        except ValueError as exc:
            if KEYS in self.files:
                self._problem("unreadable", KEYS, str(exc))
        for refused in self.enrolled.refused:
            self._problem("signature", KEYS, refused)

    def _check_signature(self, manifest: BundleManifest) -> None:
        content = self.files.get(SIGNATURE)
        if content is None:
            self._problem("unsigned", SIGNATURE, "nobody has signed the bundle")
            return
        try:
            signed = parse_signature(content, self.files[MANIFEST])
        except ValueError as exc:
            self._problem("unreadable", SIGNATURE, str(exc))
            return
        if not signed.is_genuine(SIGNED_AS):
            self._problem("signature", MANIFEST, "the signature is not that of the key that it names")
            return
        self.signer = signed.signer
        if manifest.signer != signed.signer:
            self._problem("signature", MANIFEST, "it names another key than the one that signed it")
        if signed.signer in self.enrolled.revoked:
            self._problem(
                "unenrolled",
                f"key {signed.signer[:16]}",
                "the administrator has revoked the key that signed the bundle",
            )
        elif not self.enrolled.is_good(signed.signer):
            self._problem(
                "unenrolled",
                f"key {signed.signer[:16]}",
                "nothing that this administrator signed says that it is the key of a host",
            )

    def _facts(self) -> EvidenceFacts | None:
        if FACTS not in self.files:
            return None
        try:
            facts = EvidenceFacts.model_validate_json(self.files[FACTS])
            strict_json(self.files[FACTS])
        except ValidationError as exc:
            first = exc.errors()[0]
            self._problem("unreadable", FACTS, f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
            return None
        except ValueError as exc:
            self._problem("unreadable", FACTS, str(exc))
            return None
        if facts.format != FACTS_FORMAT:
            self._problem("unreadable", FACTS, f"format {facts.format} is not known to this version")
            return None
        return facts

    def _check_period(self, facts: EvidenceFacts) -> None:
        """Tell facts of another time than their period says, by its name."""
        told = facts.period
        try:
            period = parse_period(told.name)
        except UsageError as exc:
            self._problem("facts", FACTS, exc.message)
            return
        if (period.begin, period.end) != (told.begin, told.end) or facts.made < told.begin:
            self._problem("facts", FACTS, f"they are of another time than {period.name}")

    def _check_judgement(self, facts: EvidenceFacts) -> None:
        self.report = judge(facts)
        if facts.rules != RULES:
            self.other_rules = facts.rules
            return
        self.problems += _report_problems(self.report, self.files.get(REPORT))
        if PAGE in self.files and self.files[PAGE] != report_page(self.report):
            self._problem("judgement", PAGE, "it does not show what follows from the facts")

    def _problem(self, kind: BundleProblemKind, subject: str, message: str) -> None:
        self.problems.append(BundleProblem(kind=kind, subject=subject, message=message))


def _report_problems(report: Report, content: bytes | None) -> Iterator[BundleProblem]:
    """Yield where a report does not say what follows from the facts, control by control as far as it can be read."""
    document = report_document(report)
    if content is None or content == canonical(document) + b"\n":
        return
    try:
        said = {each["code"]: each for each in json.loads(content)["controls"]}
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        yield BundleProblem(kind="unreadable", subject=REPORT, message=f"it is no report: {exc}")
        return
    differ = [each for each in document["controls"] if said.get(each["code"]) != each]
    for each in differ:
        result = said.get(each["code"], {}).get("result", "nothing")
        follows = f"it says {result}, and {each['result']} follows from the facts"
        message = (
            follows if result != each["result"] else "it tells other findings than follow from the facts"
        )
        yield BundleProblem(kind="judgement", subject=each["code"], message=message)
    if not differ:
        yield BundleProblem(kind="judgement", subject=REPORT, message="it says something else than the facts")
