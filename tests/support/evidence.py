"""Facts in which everything is as it should be, measured or attested, and a bundle of them; tests make them worse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any

from pgstow.audit.documents import ENROLMENT, ENTRY, Enrolment, enrolment_bytes, entry_bytes
from pgstow.audit.entries import AuditEntry
from pgstow.audit.keys import AdministratorKey, HostKey
from pgstow.audit.trail import SignedEntry, digest_of
from pgstow.catalog.drills import CheckRecord, DrillRecord, PhaseRecord, TableProof
from pgstow.evidence import facts as evidence
from pgstow.evidence.attestations import (
    ATTEST,
    STATEMENTS,
    TESTED,
    TESTED_KEY,
    attestation_facts,
    entry_words,
)
from pgstow.evidence.bundle import bundle_files
from pgstow.evidence.controls import RULES
from pgstow.evidence.drills import drill_facts
from pgstow.evidence.period import Period, parse_period
from pgstow.evidence.trail import entry_facts, part_of_chain

__all__ = [
    "BEGIN",
    "MADE",
    "OTHER_ID",
    "PERIOD",
    "Evidence",
    "drill_record",
    "good_evidence",
    "good_facts",
    "signed_chain",
    "stated_entry",
    "tested_entry",
    "waiver",
]

DAY = timedelta(days=1)
PERIOD = parse_period("2026-10-01..2026-10-31")
BEGIN = PERIOD.begin
MADE = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)
REPOSITORY_ID, OTHER_ID = "5f" * 32, "6a" * 32
KEY_ID = "4b" * 32
STATED = BEGIN - 20 * DAY + timedelta(hours=10)


def backup_id(number: int) -> str:
    return f"{number:08d}-0000-4000-8000-000000000000"


def drill_record(at: datetime, *, number: int = 0, **changed: Any) -> DrillRecord:
    """Return the record of a drill that passed."""
    values: dict[str, Any] = {
        "id": f"d{number:07d}-0000-4000-8000-000000000000",
        "selected": "rotate",
        "backup_id": backup_id(number),
        "backup_name": "shop",
        "backup_kind": "daily",
        "snapshot_taken": at - timedelta(hours=6),
        "source_version": "18.7",
        "repository": "s3://near/shop",
        "started": at,
        "finished": at + timedelta(minutes=20),
        "host": "db1",
        "by": "ops",
        "place": "throwaway",
        "server": "18.7",
        "is_isolated": True,
        "is_removed": True,
        "outcome": "passed",
        "restored_s": 900.0,
        "proven_s": 1100.0,
        "rto_target_s": 14400.0,
        "lost_s": 21600.0,
        "rows": 100,
        "size_bytes": 5000,
        "phases": (PhaseRecord(name="data", begun_s=1.0, seconds=600.0),),
        "tables": (
            TableProof(
                schema_="public", name="clients", rows=100, size_bytes=5000, load_s=1.0, is_equal=True
            ),
        ),
        "checks": (
            CheckRecord(code="content", outcome="pass", message="every row is the one that was saved"),
            CheckRecord(code="assertion", subject="balance", outcome="pass", message="0 as expected"),
        ),
    }
    return DrillRecord(**(values | changed))


def signed_chain(
    key: HostKey,
    moments: Sequence[datetime],
    *,
    action: str = "backup",
    repository: str = REPOSITORY_ID,
    stated: Sequence[dict[str, Any]] = (),
) -> list[SignedEntry]:
    """Return a chain with an entry at each moment, after those that say what is ``stated``."""
    chain: list[SignedEntry] = []
    changes = [*stated, *({"at": at} for at in moments)]
    for number, changed in enumerate(changes, start=1):
        values: dict[str, Any] = {
            "chain": key.chain,
            "number": number,
            "host": "db1",
            "user": "ops",
            "action": action,
            "subjects": (backup_id(number),),
            "result": "done",
            "previous": chain[-1].digest if chain else "",
            "repository": repository,
        }
        entry = AuditEntry(**(values | changed))
        raw = key.signed(ENTRY, entry_bytes(entry)).encode()
        chain.append(SignedEntry(entry=entry, digest=digest_of(raw), raw=raw))
    return chain


def stated_entry(control: str, **changed: Any) -> dict[str, Any]:
    """Return what is different about an entry that attests a control."""
    words = entry_words(
        control, by="Ada", on=changed.pop("on", STATED.date()), until=changed.pop("until", None), note="looked at all",
        file="minutes.pdf", content=b"minutes",
    )  # fmt: skip
    # Its id is made by chance; a report that is kept needs the same every time.
    return {
        "at": STATED,
        "action": ATTEST,
        "subjects": (control,),
        "facts": words | {"id": f"id-{control}"},
    } | changed


def tested_entry() -> dict[str, Any]:
    return {
        "at": STATED,
        "action": TESTED,
        "subjects": (),
        "facts": {TESTED_KEY: KEY_ID, "note": "from the safe"},
    }


def waiver(control: str, until: date) -> evidence.WaiverFacts:
    return evidence.WaiverFacts(control=control, until=until, reason="a new bucket is ordered", by="ciso")


def manifest(**changed: Any) -> evidence.ManifestFacts:
    values: dict[str, Any] = {
        "tls": "TLSv1.3",
        "via": "network",
        "globals_captured": True,
        "globals_missing": ("role passwords: not asked for (--role-passwords)",),
        "extensions": 2,
        "has_configuration": True,
        "server_version": "18.7",
    }
    return evidence.ManifestFacts(**(values | changed))


def _backups() -> tuple[evidence.BackupFacts, ...]:
    first = BEGIN - DAY + timedelta(hours=2, seconds=20)
    return tuple(
        evidence.BackupFacts(
            id=backup_id(number),
            database="shop",
            kind="daily",
            time=first + number * DAY,
            repositories=("near", "far"),
            is_whole=True,
            counts_for_rpo=True,
            manifest=manifest(),
        )
        for number in range(32)
    )


def _runs() -> tuple[evidence.RunFacts, ...]:
    backups = [
        evidence.RunFacts(
            id=f"r{number}",
            plan="daily",
            job="backup",
            kind="daily",
            database="shop",
            due=BEGIN + (number - 40) * DAY + timedelta(hours=2),
            started=BEGIN + (number - 40) * DAY + timedelta(hours=2, seconds=10),
            finished=BEGIN + (number - 40) * DAY + timedelta(hours=2, minutes=5),
            outcome="done",
            backup_id=backup_id(number - 39) if number >= 39 else f"old{number}",
            stored_in=("near", "far"),
        )
        for number in range(71)
    ]
    verified = [
        evidence.RunFacts(
            id=f"v{number}",
            plan="verify",
            job="verify",
            kind="verify",
            started=BEGIN + (number * 7 - 14) * DAY,
            finished=BEGIN + (number * 7 - 14) * DAY + timedelta(hours=1),
            outcome="done",
            stored_in=("near", "far"),
        )
        for number in range(7)
    ]
    return (*backups, *verified)


def _repository(name: str, *, region: str, provider: str, account: str) -> evidence.RepositoryFacts:
    return evidence.RepositoryFacts(
        name=name,
        location=f"s3://{name}/shop",
        known_since=BEGIN - 200 * DAY,
        encryption="AES-256 in counter mode",
        key_times=(BEGIN - 100 * DAY,),
        key_ids=(KEY_ID,),
        keys_removed=(),
        overdue=0,
        provider=provider,
        region=region,
        account=account,
        transport="https",
        tls="TLSv1.3",
        deletion=evidence.DeletionFacts(may_write=True, may_delete=True, keeps_versions=True),
    )


def _locks() -> tuple[evidence.LockFacts, ...]:
    """One of two copies is held until its retention ends; nothing keeps the other."""
    return tuple(
        evidence.LockFacts(
            repository=repository,
            database="shop",
            kind=kind,
            backup_id=backup_id(31),
            made=MADE - DAY,
            needed=MADE + 29 * DAY,
            is_lockable=repository == "far",
            objects=12,
            held=12 if repository == "far" else 0,
        )
        for repository in ("near", "far")
        for kind in ("daily", "dr")
    )


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a bundle is made from."""

    facts: evidence.EvidenceFacts
    drills: dict[str, bytes]
    entries: tuple[bytes, ...]
    attestations: tuple[bytes, ...]
    enrolments: tuple[bytes, ...]
    host: HostKey
    administrator: AdministratorKey

    def files(self, **changed: Any) -> dict[str, bytes]:
        """Return the files of the bundle, signed by the host."""
        values: dict[str, Any] = {
            "drills": self.drills,
            "entries": self.entries,
            "attestations": self.attestations,
            "enrolments": self.enrolments,
            "key": self.host,
        }
        facts = changed.pop("facts", self.facts)
        return bundle_files(facts, **(values | changed))


def enrolment(administrator: AdministratorKey, host: HostKey, **changed: Any) -> bytes:
    values: dict[str, Any] = {
        "chain": host.chain,
        "host": "db1",
        "host_key": host.public_key,
        "at": BEGIN - 90 * DAY,
        "repository": REPOSITORY_ID,
    }
    return administrator.signed(ENROLMENT, enrolment_bytes(Enrolment(**(values | changed)))).encode()


def good_evidence(period: Period = PERIOD) -> Evidence:
    """Return evidence in which nothing fails and nothing is unknown."""
    host, administrator = HostKey.generate(), AdministratorKey.generate()
    chain = signed_chain(
        host, [BEGIN - 3 * DAY + number * 2 * DAY for number in range(19)], stated=[tested_entry()]
    )
    part = part_of_chain(chain, period.begin, period.end)
    elsewhere = signed_chain(
        host,
        [BEGIN + DAY, BEGIN + 9 * DAY],
        action="list",
        repository=OTHER_ID,
        stated=[tested_entry(), *map(stated_entry, STATEMENTS)],
    )
    stated = {
        each.raw: found
        for name, entries in (("near", chain), ("far", elsewhere))
        for each in entries
        if (found := attestation_facts(each.entry, each.digest, repository=name))
    }
    far = part_of_chain(elsewhere, period.begin, period.end)
    records = [drill_record(BEGIN + (number * 14 - 10) * DAY, number=number) for number in range(4)]
    records += [drill_record(BEGIN + 3 * DAY, number=9, backup_kind="dr")]
    drills = {record.id: record.to_json() for record in records}
    facts = evidence.EvidenceFacts(
        rules=RULES,
        pgstow="1.2.3",
        made=MADE,
        host="db1",
        by="ops",
        period=evidence.PeriodFacts(name=period.name, begin=period.begin, end=period.end),
        policy=evidence.PolicyFacts(
            grace_s=3600, verify_within_s=35 * 86400, drill_within_s=30 * 86400, canary_within_s=7 * 86400
        ),
        databases=(
            evidence.DatabaseFacts(name="shop", rpo_s=90000, rto_s=14400, critical=("public.ledger",)),
        ),
        plans=(
            evidence.PlanFacts(
                name="daily",
                job="backup",
                kind="daily",
                databases=("shop",),
                repositories=("near", "far"),
                cron="0 2 * * * (UTC)",
                dues=tuple(period.begin + number * DAY + timedelta(hours=2) for number in range(31)),
                late_s=3600,
                known_since=BEGIN - 200 * DAY,
            ),
        ),
        repositories=(
            _repository("near", region="eu-central-1", provider="s3", account="1"),
            _repository("far", region="eu-west-1", provider="s3 at store.example", account="2"),
        ),
        backups=_backups(),
        tiers=tuple(
            evidence.TierFacts(
                repository=repository,
                database="shop",
                kind=kind,
                backups=30,
                oldest=BEGIN - 400 * DAY,
                newest=MADE,
            )
            for repository in ("near", "far")
            for kind in ("daily", "dr")
        ),
        runs=_runs(),
        runs_since=BEGIN - 40 * DAY,
        drills=tuple(
            drill_facts(record, drills[record.id], repository="far" if record.backup_kind == "dr" else "near")
            for record in records
        ),
        channels=(
            evidence.ChannelFacts(
                name="slack",
                known_since=BEGIN - 100 * DAY,
                acknowledged=tuple(BEGIN + (number * 5 - 2) * DAY for number in range(8)),
            ),
        ),
        contacts=2,
        servers=(
            evidence.ServerFacts(database="shop", source="shop", identity="7", found=("shop", "postgres")),
        ),
        excluded_databases=("postgres",),
        tools=(evidence.ToolFacts(name="client programs in /usr/lib/postgresql/18/bin", version="18.7"),),
        locks=_locks(),
        secrets=evidence.SecretFacts(references=3, readable_by_others=0, known=3),
        searches=tuple(
            evidence.SearchFacts(place=place, looked_at=7) for place in ("settings", "processes", "records")
        ),
        audit=(
            evidence.AuditFacts(
                repository="near",
                id=REPOSITORY_ID,
                entries=len(chain),
                anchors=3,
                heads=(evidence.HeadFacts(chain=host.chain, number=len(chain), digest=chain[-1].digest),),
            ),
            evidence.AuditFacts(
                repository="far",
                id=OTHER_ID,
                entries=len(elsewhere),
                anchors=1,
                heads=(
                    evidence.HeadFacts(chain=host.chain, number=len(elsewhere), digest=elsewhere[-1].digest),
                ),
            ),
        ),
        audit_entries=tuple(
            entry_facts(each.entry, repository="near")
            for each in part
            if period.begin <= each.entry.at < period.end
        )
        + tuple(
            entry_facts(each.entry, repository="far")
            for each in far
            if period.begin <= each.entry.at < period.end
        ),
        attestations=tuple(stated.values()),
    )
    return Evidence(
        facts=facts,
        drills=drills,
        entries=tuple(each.raw for each in (*part, *far)),
        attestations=tuple(stated),
        enrolments=(enrolment(administrator, host),),
        host=host,
        administrator=administrator,
    )


@cache
def _good_facts() -> evidence.EvidenceFacts:
    return good_evidence().facts  # nothing can change them


def good_facts(**changed: Any) -> evidence.EvidenceFacts:
    """Return facts in which nothing fails, with some of them changed."""
    return _good_facts().model_copy(update=changed)
