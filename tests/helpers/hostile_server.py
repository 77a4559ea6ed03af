"""A local server that answers as told: well, late, with errors, with garbage, or half."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[["Handler", dict], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server: Any = self.server
        with server.lock:
            number = len(server.requests)
            server.requests.append({"at": time.monotonic(), "path": self.path, "body": body})
            server.authorisations.add(self.headers["Authorization"])
            server.busy += 1
            server.busiest = max(server.busiest, server.busy)
        try:
            server.reply(number)(self, body)
        finally:
            with server.lock:
                server.busy -= 1

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def serving(reply: Callable[[int], Reply]) -> Iterator[Any]:
    """Serve on a free port; ``reply`` says how request number i is answered."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.reply, server.requests, server.lock = reply, [], threading.Lock()
    server.authorisations, server.busy, server.busiest = set(), 0, 0
    server.url = f"http://127.0.0.1:{server.server_port}/v1"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def chat(
    content: str | None, finish: str = "stop", refusal: str | None = None, **more: str
) -> Reply:
    """A chat completion with this content; ``more``: other keys of its message."""
    message = {"role": "assistant", "content": content, "refusal": refusal, **more}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    usage = {"prompt_tokens": 40, "completion_tokens": 9, "total_tokens": 49}
    body = {"id": "x", "object": "chat.completion", "created": 0, "model": "m"}
    answer = json.dumps({**body, "choices": [choice], "usage": usage}).encode()
    return lambda handler, _: handler.send(200, answer)


def status(code: int, **headers: str) -> Reply:
    """An error."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler, _: handler.send(code, b'{"error": {"message": "no"}}', named)


def garbage(body: bytes) -> Reply:
    """200 with a body that is no answer."""
    return lambda handler, _: handler.send(200, body)


def late(seconds: float, then: Reply) -> Reply:
    """The answer after a while."""

    def reply(handler: Handler, body: dict) -> None:
        time.sleep(seconds)
        then(handler, body)

    return reply


def half(handler: Handler, _: dict) -> None:
    """Promises a body, sends a part of it and dies."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "5000")
    handler.end_headers()
    handler.wfile.write(b'{"id": "x", "choi')
    handler.close_connection = True
