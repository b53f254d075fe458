"""Where resources live and how changes are announced: one contract, several back ends.

In: resources to put, keys to delete. Out: stored resources, and every commit in order to those who watch.
Never: validation of what a resource says, or any knowledge of proxies.
"""

from kumafast.store.memory import MemoryStore
from kumafast.store.opening import keyring_of, open_questions, open_store
from kumafast.store.sealing import Keyring
from kumafast.store.sqlite import SqliteStore
from kumafast.store.store import Change, Commit, Delete, Listing, Put, Store, StoredResource

__all__ = [
    "Change",
    "Commit",
    "Delete",
    "Keyring",
    "Listing",
    "MemoryStore",
    "Put",
    "SqliteStore",
    "Store",
    "StoredResource",
    "keyring_of",
    "open_questions",
    "open_store",
]
