"""PostgreSQL with pgvector: vectors in a table, and in an index of three kinds or none.

`hnsw` is there from the beginning and grows with the table; `ivfflat` needs data to find its lists in, so it is made by
`build`; without an index PostgreSQL compares with every row, which is exact. `quantization` is of the index alone: the table
keeps every vector whole, and `rescore` orders what the index finds by these (`oversampling` times as many). Which index, if
any, a search takes is PostgreSQL's to choose by cost (a small table is read through); `explain` shows it, `exact=True` keeps
it from the index and `exact=False` from reading through.

Filters are conditions of the query, over an array of words with an index of its own (GIN). A vector index finds its nearest
first and drops what does not match, so with `iterative_scan` it goes on until enough match or `max_scan_tuples` were seen:
beyond that fewer come than were asked for, and never a wrong one. A batch is one transaction: all of it or nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from llminfra.errors import StoreError, first_line
from llminfra.stores.address import Address
from llminfra.stores.base import Hit, Store
from llminfra.stores.filters import Word, term, terms
from llminfra.stores.postgres_server import Database, alone, connect, run_program
from llminfra.stores.postgres_table import OPERATORS, make_index, make_table, note, noted, part_name
from llminfra.stores.settings import Settings, defaults

BUILD_S = 3600
VECTOR_S = 0.1
"""How long an index may be built, and how long each vector of a batch may take, before a server is taken for gone."""


class PostgresStore(Store):
    """A table of a PostgreSQL server."""

    ENGINE: ClassVar[str] = "postgres"
    INDEX: ClassVar[Settings] = {
        "index": ("hnsw", ("hnsw", "ivfflat", None)),
        "m": (16, range(2, 101)),
        "ef_construct": (64, range(4, 1001)),
        "lists": (100, range(1, 32769)),
        "quantization": (None, (None, "halfvec", "binary")),
        "synchronous_commit": (True, bool),
    }
    SEARCH: ClassVar[Settings] = {
        "ef": (40, range(1, 1001)),
        "probes": (1, range(1, 32769)),
        "exact": (None, (None, True, False)),
        "rescore": (True, bool),
        "oversampling": (1.0, float),
        "iterative_scan": ("strict_order", ("off", "relaxed_order", "strict_order")),
        "max_scan_tuples": (20_000, range(1, 2**31)),
    }
    FAULTS = (psycopg.Error, OSError)

    def __init__(self, database: Database, *rest: Any):
        super().__init__(*rest)
        self._database = database
        self._sql = database.connection
        self._table = sql.Identifier(self.name)
        self._now: dict[str, str] = {}
        self._durable(self.index)

    @property
    def dsn(self) -> str:
        """How a client reaches the database of this collection: a libpq connection string."""
        return self._database.dsn

    @property
    def server_pid(self) -> int:
        """The process id of our server; 0 if it is not ours."""
        return self._database.server.pid if self._database.server else 0

    def explain(self, vector: Any, limit: int = 10, where: Any = None, **options: Any) -> list[str]:
        """Return the plan that PostgreSQL makes for a search and how long each step took (EXPLAIN ANALYZE), by lines."""
        with self._using():
            query, conditions, given = self._asked(vector, limit, where, options)
            if conditions is None:
                return ["nothing can match: PostgreSQL is not asked"]
            text, values = self._query(query, int(limit), conditions, given)
            return [str(row[0]) for row in self._sql.execute(sql.SQL("EXPLAIN (ANALYZE, BUFFERS OFF) ") + text, values)]

    def _upsert(self, ids: list[int], vectors: NDArray[np.float32], payloads: list[dict[str, Any]]) -> None:
        written = [json.dumps(payload, ensure_ascii=False) for payload in payloads]
        rows = zip(ids, vectors, written, map(terms, payloads), strict=True)
        text = "INSERT INTO {} VALUES (%s, %s, %s::json, %s::text[]) ON CONFLICT (id) DO UPDATE "
        text += "SET embedding = excluded.embedding, payload = excluded.payload, terms = excluded.terms"
        slowly = len(ids) * VECTOR_S
        with self._sql.patience(slowly), self._sql.transaction(), self._sql.cursor() as cursor:
            cursor.executemany(sql.SQL(text).format(self._table), rows)

    def _delete(self, ids: list[int]) -> None:
        self._sql.execute(sql.SQL("DELETE FROM {} WHERE id = ANY(%s)").format(self._table), [ids])

    def _search(
        self, vector: NDArray[np.float32], limit: int, conditions: dict[str, list[Word]], options: dict[str, Any]
    ) -> list[Hit]:
        text, values = self._query(vector, limit, conditions, options)
        # Sorted here: a relaxed scan, and an index of rounded vectors, give them in nearly the right order.
        rows = sorted(self._sql.execute(text, values).fetchall(), key=lambda row: (row[2], row[0]))
        cosine = self.distance == "cosine" and not (self.index["quantization"] == "binary" and not options["rescore"])
        return [Hit(row[0], (1 if cosine else 0) - row[2], row[1]) for row in rows[:limit]]

    def _query(
        self, vector: NDArray[np.float32], limit: int, conditions: dict[str, list[Word]], options: dict[str, Any]
    ) -> tuple[sql.Composed, dict[str, Any]]:
        """Return a search in SQL and its parameters, after setting what it wants of the session."""
        ivfflat, wanted = self.index["index"] == "ivfflat", options["iterative_scan"]
        self._set(
            {
                "hnsw.ef_search": str(options["ef"]),
                "hnsw.iterative_scan": wanted,
                "hnsw.max_scan_tuples": str(options["max_scan_tuples"]),
                "ivfflat.probes": str(options["probes"]),
                "ivfflat.iterative_scan": "relaxed_order" if ivfflat and wanted != "off" else "off",
                "enable_indexscan": "off" if options["exact"] is True else "on",
                "enable_seqscan": "off" if options["exact"] is False else "on",
            }
        )
        whole = sql.SQL("embedding {} %(vector)s").format(sql.SQL(OPERATORS[self.distance][0]))
        rounded = None if options["exact"] else self._rounded()
        order = whole if rounded is None else rounded
        values: dict[str, Any] = {"vector": vector}
        for number, (field, asked) in enumerate(conditions.items()):
            values[f"terms{number}"] = [term(field, value) for value in asked]
        kept = [sql.SQL("terms && {}").format(sql.Placeholder(name)) for name in values if name != "vector"]
        seen = (
            limit if rounded is None or not options["rescore"] else max(limit, round(limit * options["oversampling"]))
        )
        text = sql.SQL("SELECT id, payload, {} FROM {} WHERE {} ORDER BY {} LIMIT {}").format(
            whole if options["rescore"] else order,
            self._table,
            sql.SQL(" AND ").join(kept) if kept else sql.SQL("true"),
            order,
            sql.Literal(seen),
        )
        return text, values

    def _rounded(self) -> sql.Composable | None:
        """Return the distance between rounded vectors, written as the index has it; None if the index has them whole."""
        size = sql.Literal(self.dimensions)
        if self.index["index"] is None or self.index["quantization"] is None:
            return None
        if self.index["quantization"] == "binary":
            text = "binary_quantize(embedding)::bit({0}) <~> binary_quantize(%(vector)s)::bit({0})"
            return sql.SQL(text).format(size)
        text = "embedding::halfvec({0}) {1} %(vector)s::halfvec({0})"
        return sql.SQL(text).format(size, sql.SQL(OPERATORS[self.distance][0]))

    def _count(self) -> int:
        return int(self._one(sql.SQL("SELECT count(*) FROM {}").format(self._table)))

    def _ids(self) -> set[int]:
        return {row[0] for row in self._sql.execute(sql.SQL("SELECT id FROM {}").format(self._table))}

    def _contents(self) -> dict[int, dict[str, Any]]:
        return dict(self._sql.execute(sql.SQL("SELECT id, payload FROM {}").format(self._table)).fetchall())

    def _build(self, index: dict[str, Any]) -> None:
        with self._sql.patience(BUILD_S), self._sql.transaction():
            make_index(self._sql, self.name, self.dimensions, self.distance, index)
            note(self._sql, self.name, {"dimensions": self.dimensions, "distance": self.distance, "index": index})
            self._sql.execute(sql.SQL("ANALYZE {}").format(self._table))
        self._durable(index)

    def _snapshot(self, folder: Path) -> None:
        file = str(folder / f"{self.name}.dump")
        run_program("pg_dump", "--format=custom", f"--table={self.name}", f"--file={file}", self._database.dsn)

    def _memory(self) -> int | None:
        return self._database.server.memory_bytes() if self._database.server else None

    def _disk(self) -> dict[str, int]:
        text = "SELECT pg_relation_size(c), pg_table_size(c) FROM (SELECT %s::regclass c) t"
        heap, table = self._sql.execute(text, [self.name]).fetchone() or (0, 0)
        text = "SELECT relname, pg_relation_size(oid) FROM pg_class JOIN pg_index ON oid = indexrelid WHERE indrelid = %s::regclass"
        found = self._sql.execute(text, [self.name]).fetchall()
        indexes = {f"index of {index.removeprefix(part_name(self.name, ''))}": size for index, size in found}
        return {"table": heap, "beside the table": table - heap, **indexes}

    def _close(self) -> None:
        self._database.close()

    def _one(self, text: sql.Composed) -> Any:
        row = self._sql.execute(text).fetchone()
        return row[0] if row else None

    def _set(self, wanted: dict[str, str]) -> None:
        changed = {name: value for name, value in wanted.items() if self._now.get(name) != value}
        if changed:
            calls = ", ".join("set_config(%s, %s, false)" for _ in changed)
            self._sql.execute(f"SELECT {calls}", [part for pair in changed.items() for part in pair])
            self._now.update(changed)

    def _durable(self, index: dict[str, Any]) -> None:
        self._set({"synchronous_commit": "on" if index["synchronous_commit"] else "off"})

    def _explain(self, error: Exception) -> str:
        if self._sql.closed:
            return f"the PostgreSQL server is gone or does not answer ({first_line(error)}); close the store and open it again"
        return super()._explain(error)


def open_collection(
    address: Address,
    place: str,
    *,
    create: bool,
    index: dict[str, Any],
    search: dict[str, Any],
    timeout_s: float,
    **_: Any,
) -> Store:
    """Start the folder's server if it does not run, or go to the one that the URL names, and open the table or make it."""
    database = connect(address, place, create, timeout_s)
    try:
        with alone(database.connection):
            record = noted(database.connection, address)
            if record is None:
                if not create:
                    raise address.absent()
                dimensions, distance = address.needed()
                settings = {**defaults(PostgresStore.INDEX), **index}
                record = {"dimensions": dimensions, "distance": distance, "index": settings}
                make_table(database.connection, address.name, record)
        shape = address.agreed(record["dimensions"], record["distance"])
        settings = address.settled(record["index"], index)
        return PostgresStore(database, address, *shape, settings, search)
    except StoreError:
        database.close()
        raise
    except psycopg.Error as error:
        database.close()
        raise StoreError(f"{address}: cannot be opened: postgres says: {first_line(error)}") from error


def restore(address: Address, place: str, folder: Path, *, timeout_s: float, **_: Any) -> Store:
    """Read a table from a dump into the database that the URL names, and open it."""
    database = connect(address, place, True, timeout_s)
    try:
        if noted(database.connection, address) is not None:
            raise StoreError(f"{address}: it exists; restore to another database, or drop it first")
        file = str(folder / f"{address.name}.dump")
        run_program("pg_restore", "--exit-on-error", "--single-transaction", f"--dbname={database.dsn}", file)
        search = defaults(PostgresStore.SEARCH)
        return open_collection(address, place, create=False, index={}, search=search, timeout_s=timeout_s)
    finally:
        database.close()
