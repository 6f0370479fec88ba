"""A server on this machine that speaks as much S3 as a client needs to put, get, list and delete objects."""

from __future__ import annotations

import hashlib
import re
import threading
import uuid
import xml.sax.saxutils
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


class S3Server(ThreadingHTTPServer):
    """Objects in memory; an object is there once all of it has arrived, and replaced in one step."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def url(self, folder: str) -> str:
        """Return the address of a folder in the bucket `lab`."""
        port = self.server_address[1]
        return f"s3://lab/{folder}?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: S3Server

    def log_message(self, *_: Any) -> None:
        pass

    def _target(self) -> tuple[str, dict[str, str]]:
        parts = urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(parts.query, keep_blank_values=True).items()}
        return unquote(parts.path).lstrip("/"), query

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "aws-chunked" not in self.headers.get("Content-Encoding", ""):
            return body
        whole = b""  # once more in chunks: size in hexadecimal, perhaps a signature, the bytes
        while body:
            head, _, body = body.partition(b"\r\n")
            size = int(head.split(b";")[0], 16)
            if size == 0:
                break
            whole, body = whole + body[:size], body[size + 2 :]
        return whole

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_PUT(self) -> None:
        key, query = self._target()
        body = self._body()
        tag = f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
        if "partNumber" in query:
            self.server.uploads[query["uploadId"]][int(query["partNumber"])] = body
        elif "/" in key:
            self.server.objects[key] = body
        self._answer(200, ETag=tag)

    def do_POST(self) -> None:
        key, query = self._target()
        body = self._body()
        if "uploads" in query:
            upload = uuid.uuid4().hex
            self.server.uploads[upload] = {}
            answer = f"<UploadId>{upload}</UploadId>"
            self._answer(200, _xml("InitiateMultipartUploadResult", f"<Key>{key}</Key>{answer}"))
        elif "uploadId" in query:
            parts = self.server.uploads.pop(query["uploadId"])
            self.server.objects[key] = b"".join(parts[n] for n in sorted(parts))
            self._answer(200, _xml("CompleteMultipartUploadResult", f'<Key>{key}</Key><ETag>"x"</ETag>'))
        else:  # DeleteObjects
            for name in re.findall(rb"<Key>(.*?)</Key>", body):
                self.server.objects.pop(f"{key.rstrip('/')}/{name.decode()}", None)
            self._answer(200, _xml("DeleteResult", ""))

    def do_DELETE(self) -> None:
        key, query = self._target()
        (self.server.uploads if "uploadId" in query else self.server.objects).pop(
            query.get("uploadId", key), None
        )
        self._answer(204)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        key, query = self._target()
        if "list-type" in query:
            self._answer(200, self._list(key.rstrip("/"), query))
            return
        body = self.server.objects.get(key)
        if body is None:
            exists = key.rstrip("/") == "lab"
            self._answer(200 if exists else 404)
            return
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        dated = {"Last_Modified": "Sun, 06 Nov 1994 08:49:37 GMT", "ETag": '"x"'}
        if span:
            first, last = int(span[1]), min(int(span[2] or len(body)), len(body) - 1)
            piece = body[first : last + 1]
            self._answer(206, piece, Content_Range=f"bytes {first}-{last}/{len(body)}", **dated)
        else:
            self._answer(200, body, Content_Length=str(len(body)), **dated)

    def _list(self, bucket: str, query: dict[str, str]) -> bytes:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        inside = sorted(
            name.removeprefix(f"{bucket}/") for name in list(self.server.objects)
            if name.startswith(f"{bucket}/{prefix}")
        )  # fmt: skip
        folders, lines = set(), []
        for name in inside:
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.split(delimiter)[0] + delimiter)
                continue
            size = len(self.server.objects[f"{bucket}/{name}"])
            lines.append(
                f"<Contents><Key>{xml.sax.saxutils.escape(name)}</Key><Size>{size}</Size>"
                "<LastModified>1994-11-06T08:49:37.000Z</LastModified></Contents>"
            )
        lines += [f"<CommonPrefixes><Prefix>{name}</Prefix></CommonPrefixes>" for name in sorted(folders)]
        count = f"<KeyCount>{len(lines)}</KeyCount><IsTruncated>false</IsTruncated>"
        return _xml(
            "ListBucketResult", f"<Name>{bucket}</Name><Prefix>{prefix}</Prefix>{count}{''.join(lines)}"
        )


def _xml(name: str, content: str) -> bytes:
    space = "http://s3.amazonaws.com/doc/2006-03-01/"
    return f'<?xml version="1.0" encoding="UTF-8"?><{name} xmlns="{space}">{content}</{name}>'.encode()
