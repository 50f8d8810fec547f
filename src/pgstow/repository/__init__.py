"""The restic repository, format 2: deduplicated, compressed, encrypted.

A *blob* is a piece of data or a tree, named by the SHA-256 of its plaintext (its *id*) and stored once.
A *pack* is a file of many blobs. An *index file* says which blob lies in which pack. A *tree* is a folder:
nodes that name blobs and further trees. A *snapshot* names one tree, with time, host, paths and tags. A *key
file* wraps the master key with a password. A *lock* is a file that tells others who is at work. A *lease* is held by
the one run that backs up a database; its *claim* lets that run publish once. A *mark* is what a person or a drill says of
a backup: a hold, a release, a proof.
"""

from pgstow.repository.claims import remove_old_claims
from pgstow.repository.files import FileKind, list_ids, pack_name
from pgstow.repository.found_leases import LeasedDatabase, remove_old_leases
from pgstow.repository.holdings import Holdings, PruneRecord
from pgstow.repository.identity import RepositoryKin
from pgstow.repository.ids import BlobId, BlobIds, BlobKind
from pgstow.repository.index import BlobIndex, Location, PackContents
from pgstow.repository.keys import KeyInfo, find_damaged_keys
from pgstow.repository.leases import Lease
from pgstow.repository.lock import RepositoryLock
from pgstow.repository.lock_times import LockTimes
from pgstow.repository.marks import Hold, Marks, Proof, Retirement
from pgstow.repository.pack_check import PackCheck
from pgstow.repository.packs import PackEntry, pack_size
from pgstow.repository.reader import ahead
from pgstow.repository.records import Records
from pgstow.repository.repository import Repository
from pgstow.repository.snapshot import Snapshot, SnapshotSummary
from pgstow.repository.transfer import StoredBlob
from pgstow.repository.tree import (
    DirNode,
    FileNode,
    Node,
    OtherNode,
    TreeError,
    decode_tree,
    encode_tree,
    is_canonical,
    without_nodes,
)
from pgstow.repository.unlocking import Obstacle
from pgstow.repository.writer import BlobWriter, PreparedBlob, SavedBlob, WriterStats

__all__ = [
    "BlobId",
    "BlobIds",
    "BlobIndex",
    "BlobKind",
    "BlobWriter",
    "DirNode",
    "FileKind",
    "FileNode",
    "Hold",
    "Holdings",
    "KeyInfo",
    "Lease",
    "LeasedDatabase",
    "Location",
    "LockTimes",
    "Marks",
    "Node",
    "Obstacle",
    "OtherNode",
    "PackCheck",
    "PackContents",
    "PackEntry",
    "PreparedBlob",
    "Proof",
    "PruneRecord",
    "Records",
    "Repository",
    "RepositoryKin",
    "RepositoryLock",
    "Retirement",
    "SavedBlob",
    "Snapshot",
    "SnapshotSummary",
    "StoredBlob",
    "TreeError",
    "WriterStats",
    "ahead",
    "decode_tree",
    "encode_tree",
    "find_damaged_keys",
    "is_canonical",
    "list_ids",
    "pack_name",
    "pack_size",
    "remove_old_claims",
    "remove_old_leases",
    "without_nodes",
]
