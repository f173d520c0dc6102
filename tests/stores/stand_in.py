"""A stand-in for a Qdrant server, which cannot be started here: it answers with the client's own models and engine in memory."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from pydantic import TypeAdapter
from qdrant_client import QdrantClient, models


class StandIn(BaseHTTPRequestHandler):
    """Answers as a Qdrant server does: each request must be what the client's models allow, extra fields refused."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _handle(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0].strip("/").split("/")
        self.server.seen.append((self.command, self.path, self.headers.get("api-key"), body))
        client, name, rest = self.server.client, path[1], [self.command, *path[2:]]
        if self.server.key not in (None, self.headers.get("api-key")):
            return self._answer({"status": {"error": "forbidden"}}, 401)
        if rest == ["GET", "exists"]:
            result = {"exists": client.collection_exists(name)}
        elif rest == ["PUT"]:
            asked = models.CreateCollection.model_validate_json(body)
            result = client.create_collection(name, asked.vectors, metadata=asked.metadata)
        elif not client.collection_exists(name) and "upload" not in rest:
            return self._answer({"status": {"error": f"Not found: Collection `{name}` doesn't exist!"}}, 404)
        elif rest == ["GET"]:
            result = client.get_collection(name)
        elif rest == ["PATCH"]:
            asked = models.UpdateCollection.model_validate_json(body)
            client._client.collections[name].config.metadata = asked.metadata
            result = True
        elif rest == ["PUT", "index"]:
            models.CreateFieldIndex.model_validate_json(body)
            result = {"operation_id": 1, "status": "completed"}
        elif rest == ["PUT", "points"]:
            asked = TypeAdapter(models.PointInsertOperations).validate_json(body)
            result = client.upsert(name, asked.points)
        elif rest == ["POST", "points", "delete"]:
            result = client.delete(name, TypeAdapter(models.PointsSelector).validate_json(body))
        elif rest == ["POST", "points", "query"]:
            asked = models.QueryRequest.model_validate_json(body)
            assert isinstance(asked.params, models.SearchParams) and asked.with_payload is True
            result = client.query_points(name, asked.query, query_filter=asked.filter, limit=asked.limit)
        elif rest == ["POST", "points", "count"]:
            asked = models.CountRequest.model_validate_json(body)
            result = client.count(name, exact=asked.exact)
        elif rest == ["POST", "points", "scroll"]:
            asked = models.ScrollRequest.model_validate_json(body)
            rows, offset = client.scroll(name, limit=asked.limit, offset=asked.offset, with_payload=asked.with_payload)
            result = {"points": [json.loads(row.model_dump_json()) for row in rows], "next_page_offset": offset}
        elif rest[1] == "snapshots":
            return self._snapshot(name, rest, body)
        self._answer({"status": "ok", "time": 0.0, "result": result})

    def _snapshot(self, name, rest, body):
        client = self.server.client
        if rest == ["POST", "snapshots"]:
            config = client.get_collection(name).config
            rows = client.scroll(name, limit=10**6, with_payload=True, with_vectors=True)[0]
            kept = [config.params.vectors.model_dump_json(), config.metadata, [row.model_dump_json() for row in rows]]
            self.server.snapshots[name] = json.dumps(kept).encode()
            return self._answer({"status": "ok", "time": 0.0, "result": {"name": "one.snapshot", "size": 1}})
        if rest == ["GET", "snapshots", "one.snapshot"]:
            return self._send(self.server.snapshots[name], 200)
        if rest[0] == "POST":
            start = body.index(b"\r\n\r\n") + 4
            vectors, metadata, rows = json.loads(body[start : body.rindex(b"\r\n--")])
            client.create_collection(name, models.VectorParams.model_validate_json(vectors), metadata=metadata)
            found = [models.Record.model_validate_json(row) for row in rows]
            client.upsert(
                name, [models.PointStruct(id=row.id, vector=row.vector, payload=row.payload) for row in found]
            )
        return self._answer({"status": "ok", "time": 0.0, "result": True})

    def _answer(self, answer, status=200):
        plain = {
            name: part.model_dump(mode="json") if hasattr(part, "model_dump") else part for name, part in answer.items()
        }
        self._send(json.dumps(plain).encode(), status)

    def _send(self, body, status):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _handle


@contextlib.contextmanager
def stand_in(key=None):
    server = ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    server.client, server.seen, server.snapshots, server.key = QdrantClient(":memory:"), [], {}, key
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
