"""An in-memory emulation of a Google Cloud Storage bucket for TensorStore, gcsfs and epath.

It has objects and no folders, so code that relies on folders fails.
"""

import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from fsspec.spec import AbstractFileSystem


class Store:
    """Objects of one bucket by name, each with its generation number."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, int]] = {}
        self._writes, self._lock = 0, threading.Lock()

    def put(self, name: str, content: bytes, expected: int | None = None) -> bool:
        """Write an object if its generation is `expected`: None for any, 0 for no object."""
        with self._lock:
            if expected not in (None, self.generation(name)):
                return False
            self._writes += 1
            self.objects[name] = content, self._writes
            return True

    def generation(self, name: str) -> int:
        return self.objects[name][1] if name in self.objects else 0

    def metadata(self, bucket: str, name: str) -> dict[str, Any]:
        content, generation = self.objects[name]
        time = "2020-01-01T00:00:00.000Z"
        fields = {"kind": "storage#object", "bucket": bucket, "name": name, "size": len(content)}
        fields |= {"generation": generation, "metageneration": 1}
        fields |= {"timeCreated": time, "updated": time}
        return {k: str(v) for k, v in fields.items()}


class _Handler(BaseHTTPRequestHandler):
    """The parts of the JSON API that TensorStore, gcsfs and epath use."""

    protocol_version = "HTTP/1.1"
    store: Store
    sessions: dict[str, tuple[str, int | None, bytes]]

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        bucket, name, _ = self._parts()
        if not name:
            return (
                self._list(bucket)
                if self.path.split("?")[0].endswith("/o")
                else self._respond_json({})
            )
        if name not in self.store.objects:
            return self._respond_json({"error": {"code": 404, "message": "no such object"}}, 404)
        if self._query("alt") != "media" and "/download/" not in self.path:
            return self._respond_json(self.store.metadata(bucket, name))
        content, generation = self.store.objects[name]
        if self._query("ifGenerationNotMatch") == str(generation):
            return self._respond(b"", 304, generation)
        span = self.headers.get("Range")
        if not span:
            return self._respond(content, 200, generation)
        begin, end = span.removeprefix("bytes=").split("-")
        if int(begin) >= len(content):
            return self._respond(b"", 416, generation)
        last = min(int(end or len(content)), len(content) - 1)
        headers = {"Content-Range": f"bytes {begin}-{last}/{len(content)}"}
        self._respond(content[int(begin) : last + 1], 206, generation, headers)

    def do_POST(self) -> None:
        if self._query("upload_id"):
            return self.do_PUT()
        bucket, name, action = self._parts()
        body = self._body()
        if action:  # rewriteTo or moveTo, followed by the target
            target = action.split("/o/")[1]
            if name not in self.store.objects:
                return self._respond_json({}, 404)
            self.store.put(unquote(target), self.store.objects[name][0])
            if action.startswith("moveTo"):
                del self.store.objects[name]
                return self._respond_json(self.store.metadata(bucket, unquote(target)))
            return self._respond_json(
                {"done": True, "resource": self.store.metadata(bucket, unquote(target))}
            )
        name, kind = self._query("name") or "", self._query("uploadType")
        expected = self._query("ifGenerationMatch")
        if kind == "resumable":
            name = name or json.loads(body)["name"]
            key = str(len(self.sessions))
            self.sessions[key] = name, expected and int(expected), b""
            location = f"http://{self.headers['Host']}{self.path.split('?')[0]}?upload_id={key}"
            return self._respond(b"", 200, 0, {"Location": location})
        if kind == "multipart":
            mark = self.headers["Content-Type"].split("boundary=")[1].strip("'\"").encode()
            parts = body.split(b"--" + mark)
            name = json.loads(
                parts[1].split(b"\r\n\r\n" if b"\r\n\r\n" in parts[1] else b"\n\n")[1]
            )["name"]
            separator = b"\r\n\r\n" if b"\r\n\r\n" in parts[2] else b"\n\n"
            body = parts[2].partition(separator)[2]
            body = (
                body.removesuffix(b"\r\n") if body.endswith(b"\r\n") else body.removesuffix(b"\n")
            )
        self._write(bucket, name, body, expected and int(expected))

    def do_PUT(self) -> None:
        key = self._query("upload_id") or ""
        name, expected, before = self.sessions[key]
        content = before + self._body()
        if self.headers.get("Content-Range", "/*").endswith("/*"):
            self.sessions[key] = name, expected, content
            return self._respond(b"", 308, 0, {"Range": f"bytes=0-{len(content) - 1}"})
        self._write(self._parts()[0], name, content, expected)

    def do_DELETE(self) -> None:
        _, name, _ = self._parts()
        found = self.store.objects.pop(name, None)
        self._respond(b"", 204 if found else 404, 0)

    def _write(self, bucket: str, name: str, content: bytes, expected: int | None) -> None:
        if not self.store.put(name, content, expected):
            return self._respond_json({"error": {"code": 412, "message": "conditionNotMet"}}, 412)
        self._respond_json(self.store.metadata(bucket, name))

    def _list(self, bucket: str) -> None:
        prefix, delimiter = self._query("prefix") or "", self._query("delimiter")
        low, high = self._query("startOffset") or "", self._query("endOffset")
        items, prefixes = [], dict[str, None]()
        for name in sorted(self.store.objects):
            if not name.startswith(prefix) or name < low or (high and name >= high):
                continue
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                prefixes[prefix + rest.split(delimiter)[0] + delimiter] = None
            else:
                items.append(self.store.metadata(bucket, name))
        self._respond_json({"kind": "storage#objects", "items": items, "prefixes": list(prefixes)})

    def _parts(self) -> tuple[str, str, str]:
        """Return the bucket, the name of the object, and the action that follows it."""
        path = urlsplit(self.path).path
        bucket, _, name = path.partition("/b/")[2].partition("/o")
        name, _, action = name.removeprefix("/").partition("/")
        return bucket, unquote(name), action

    def _query(self, name: str) -> str | None:
        return parse_qs(urlsplit(self.path).query, keep_blank_values=True).get(name, [None])[0]

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _respond_json(self, content: dict[str, Any], status: int = 200) -> None:
        self._respond(json.dumps(content).encode(), status, 0)

    def _respond(
        self, content: bytes, status: int, generation: int, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        if generation:
            self.send_header("x-goog-generation", str(generation))
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def serve(store: Store, port: int = 0) -> Iterator[str]:
    """Serve the store as a bucket of any name, and yield the URL of the server."""
    handler = type("Handler", (_Handler,), {"store": store, "sessions": {}})
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # the client has closed the connection
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


class FakeFileSystem(AbstractFileSystem):
    """The fsspec file system of the store, for epath. All bucket names refer to the same store."""

    protocol = ("gs", "gcs")
    cachable = False

    def __init__(self, store: Store, **options: Any) -> None:
        super().__init__()
        self.store, self.options = store, options

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        name = self._name(path)
        if name in self.store.objects:
            found = [self.info(path)]
        else:
            prefix = f"{name}/" if name else ""
            below = [
                n.removeprefix(prefix) for n in list(self.store.objects) if n.startswith(prefix)
            ]
            if not below:
                raise FileNotFoundError(path)
            parts = dict.fromkeys(rest.split("/")[0] for rest in below)
            found = [self.info(f"bucket/{prefix}{part}") for part in parts]
        return found if detail else [entry["name"] for entry in found]

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        name = self._name(path)
        if name in self.store.objects:
            size = len(self.store.objects[name][0])
            return {"name": f"bucket/{name}", "size": size, "type": "file"}
        if any(one.startswith(f"{name}/") for one in list(self.store.objects)):
            return {"name": f"bucket/{name}", "size": 0, "type": "directory"}
        raise FileNotFoundError(path)

    def _open(self, path: str, mode: str = "rb", **options: Any) -> io.BytesIO:
        if mode == "rb":
            return io.BytesIO(self.cat_file(path))
        return _ObjectWriter(self.store, self._name(path))

    def cat_file(self, path: str, *span: Any, **options: Any) -> bytes:
        if self._name(path) not in self.store.objects:
            raise FileNotFoundError(path)
        return self.store.objects[self._name(path)][0]

    def cp_file(self, path1: str, path2: str, **options: Any) -> None:
        if self.isfile(path1):
            self.store.put(self._name(path2), self.cat_file(path1))

    def rm_file(self, path: str) -> None:
        if self.store.objects.pop(self._name(path), None) is None and not self.exists(path):
            raise FileNotFoundError(path)

    def rm(self, path: str, recursive: bool = False, **options: Any) -> None:
        if not recursive:
            return self.rm_file(path)
        for name in self.find(path):
            self.rm_file(name)

    def find(self, path: str, detail: bool = False, **options: Any) -> Any:
        name = self._name(path)
        below = [n for n in list(self.store.objects) if n == name or n.startswith(f"{name}/")]
        found = {f"bucket/{one}": {"size": len(self.store.objects[one][0])} for one in below}
        return found if detail else list(found)

    def mkdir(self, path: str, **options: Any) -> None:
        pass

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        pass

    def rmdir(self, path: str) -> None:
        pass

    def _name(self, path: str) -> str:
        return str(path).removeprefix("gs://").strip("/").partition("/")[2]


class _ObjectWriter(io.BytesIO):
    """A file that writes its object when it is closed."""

    def __init__(self, store: Store, name: str) -> None:
        super().__init__()
        self._store, self._name = store, name

    def close(self) -> None:
        if not self.closed:
            self._store.put(self._name, self.getvalue())
        super().close()
