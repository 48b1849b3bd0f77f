"""A web server on this computer that breaks off, corrupts, stalls, forgets and lies as a test wants."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """What it serves and how.

    Attributes:
        files: path → content.
        headers: sent with every file (ETag, Last-Modified).
        ranges: whether it answers Range at all; if_range: whether it looks at If-Range.
        script: one entry for each request to come, then it behaves; keys: status, html, stop (bytes of the body after which
            the connection is closed), stall (bytes after which nothing comes until `go_on` is set), corrupt (offset of a byte to
            change), redirect (where to), chunked, no_length, wrong_start.
        always: as an entry of the script, for every request.
        asked: (path, Range, If-Range) of each request.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.headers = {"ETag": '"one"'}
        self.ranges = self.if_range = True
        self.script: list[dict] = []
        self.always: dict = {}
        self.asked: list[tuple[str, str | None, str | None]] = []
        self.go_on = threading.Event()
        self.url = ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        served: Server = self.server.served
        asked, fresh = self.headers.get("Range"), self.headers.get("If-Range")
        served.asked.append((self.path, asked, fresh))
        play = served.always | (served.script.pop(0) if served.script else {})
        if "redirect" in play:
            return self.answer(302, {"Location": play["redirect"]}, b"")
        if "status" in play or self.path not in served.files:
            return self.answer(play.get("status", 404), {}, b"no")
        if "html" in play:
            return self.answer(200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>Sign in</html>")
        content, headers, status = served.files[self.path], dict(served.headers), 200
        total, start = len(content), int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        known = fresh is None or not served.if_range or fresh in served.headers.values()
        if asked and served.ranges and known:
            if start >= total:
                return self.answer(416, {"Content-Range": f"bytes */{total}"}, b"")
            start = play.get("wrong_start", start)
            status, content = 206, content[start:]
            headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
        if "corrupt" in play:
            content = bytearray(content)
            content[play["corrupt"]] ^= 1
        self.answer(status, headers, bytes(content), play)

    def answer(self, status: int, headers: dict, body: bytes, play: dict | None = None):
        play = play or {}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if play.get("chunked"):
            self.send_header("Transfer-Encoding", "chunked")
        elif not play.get("no_length"):
            self.send_header("Content-Length", str(len(body)))
        self.close_connection = True
        self.end_headers()
        stop = play.get("stop", play.get("stall", len(body)))
        try:
            for part in (body[:stop], None, body[stop:]):
                if part is None:
                    if "stop" in play:
                        return
                    if "stall" in play:
                        self.server.served.go_on.wait(20)
                elif part:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part) if play.get("chunked") else part)
                    self.wfile.flush()
            if play.get("chunked"):
                self.wfile.write(b"0\r\n\r\n")
        except ConnectionError:
            return  # whoever asked has gone


@contextmanager
def serving() -> Iterator[Server]:
    """A server that is up inside the block."""
    served = Server()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as http:
        http.daemon_threads = True
        http.served = served
        served.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield served
        finally:
            served.go_on.set()
            http.shutdown()
            thread.join()
