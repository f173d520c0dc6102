"""The table of a collection in PostgreSQL, its indexes, and the note beside it of what it was made with."""

from __future__ import annotations

import json
from typing import Any

import psycopg
from psycopg import sql

from llminfra.errors import StoreError
from llminfra.stores.address import Address

OPERATORS = {"cosine": ("<=>", "cosine"), "dot": ("<#>", "ip"), "euclid": ("<->", "l2")}
"""How pgvector writes a distance, and what its operator classes call it. `<#>` is the dot product, negated."""


def part_name(name: str, part: str) -> str:
    """Return the name of a table's index, which no other collection's name can be: tables and indexes share their names."""
    return f"{name}.{part}"


def make_index(session: psycopg.Connection, name: str, dimensions: int, distance: str, index: dict[str, Any]) -> None:
    """Put an index on the vectors of a table in place of the one that is there."""
    built = sql.Identifier(part_name(name, "vectors"))
    session.execute(sql.SQL("DROP INDEX IF EXISTS {}").format(built))
    if index["index"] is None:
        return
    form, operators = "embedding", f"vector_{OPERATORS[distance][1]}_ops"
    if index["quantization"] == "halfvec":
        form, operators = f"(embedding::halfvec({dimensions}))", f"halfvec_{OPERATORS[distance][1]}_ops"
    elif index["quantization"] == "binary":
        form, operators = f"(binary_quantize(embedding)::bit({dimensions}))", "bit_hamming_ops"
    settings = f"m = {index['m']}, ef_construction = {index['ef_construct']}"
    if index["index"] == "ivfflat":
        settings = f"lists = {index['lists']}"
    text = f"CREATE INDEX {{}} ON {{}} USING {index['index']} ({form} {operators}) WITH ({settings})"
    session.execute(sql.SQL(text).format(built, sql.Identifier(name)))


def note(session: psycopg.Connection, name: str, record: dict[str, Any]) -> None:
    """Write beside a table what it was made with."""
    text = sql.SQL("COMMENT ON TABLE {} IS {}").format(sql.Identifier(name), sql.Literal(json.dumps(record)))
    session.execute(text)


def noted(session: psycopg.Connection, address: Address) -> dict[str, Any] | None:
    """Return what a table was made with; None if there is no such table. Raises StoreError if it is no store's."""
    row = session.execute("SELECT obj_description(to_regclass(%s)), to_regclass(%s)", [address.name] * 2).fetchone()
    if row is None or row[1] is None:
        return None
    try:
        record: dict[str, Any] = json.loads(row[0] or "")
        return {name: record[name] for name in ("dimensions", "distance", "index")}
    except (ValueError, LookupError, TypeError):
        raise StoreError(f"{address}: there is a table of that name that is no store; take another name") from None


def make_table(session: psycopg.Connection, name: str, record: dict[str, Any]) -> None:
    """Make a table, its indexes and the note beside it, all or nothing."""
    table = sql.Identifier(name)
    key, words = (sql.Identifier(part_name(name, part)) for part in ("id", "terms"))
    text = "CREATE TABLE {} (id bigint CONSTRAINT {} PRIMARY KEY, embedding vector({}), payload json, terms text[])"
    with session.transaction():
        session.execute(sql.SQL(text).format(table, key, sql.Literal(record["dimensions"])))
        session.execute(sql.SQL("CREATE INDEX {} ON {} USING gin (terms)").format(words, table))
        if record["index"]["index"] == "hnsw":
            make_index(session, name, record["dimensions"], record["distance"], record["index"])
        note(session, name, record)
