"""The store in PostgreSQL, which any number of instances share: commits are ordered by one counter row."""

from kumafast.store.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
