"""A server on this machine that plays a file host, the Hugging Face Hub and Google Drive, with faults."""

import hashlib
import json
import re
import threading
import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_secret"
QUOTA_PAGE = (
    b"<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head><body>"
    b'<p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently.</p>'
    b"</body></html>"
)
LOGIN_PAGE = b"<html><head><title>Sign in to the hotel&#39;s network</title></head><body></body></html>"
CONFIRM_PAGE = (
    b'<html><body><form id="download-form" action="https://drive.usercontent.google.com/download">'
    b'<input type="hidden" name="id" value="%b"><input type="hidden" name="confirm" value="t">'
    b"</form></body></html>"
)


@dataclass
class Host:
    """What is served, which faults come next, and what was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """By path: one for each request, in order; none left: all goes well."""
    always: set[str] = field(default_factory=set)
    """Faults of every request: no-range, no-etag, no-length."""
    private: bool = False
    slow_s: float = 0.05
    asked: list[tuple[str, str | None, int]] = field(default_factory=list)
    """Path, Range and status of each answer with a file."""
    tokens: list[tuple[str, str | None]] = field(default_factory=list)
    address: str = ""
    port: int = 0

    def url(self, path):
        return f"{self.address}{path}"


@contextmanager
def file_host(kind=None, answers=None):
    """The server, as long as the block goes on; another kind of Host may know more and answer more."""
    host = (kind or Host)()

    class Handler(answers or Answers):
        served = host

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # a client that has gone is what some tests are about
    server.daemon_threads = True
    host.port = server.server_address[1]
    host.address = f"http://127.0.0.1:{host.port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield host
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Answers(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or a body waits 40 ms for its headers to be confirmed
    served: Host

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = urlsplit(self.path).path
        self.served.tokens.append((path, self.headers.get("Authorization")))
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            self.describe(*found.groups())
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.resolve(*found.groups())
        elif path in ("/uc", "/download"):
            self.drive(parse_qs(urlsplit(self.path).query))
        else:
            self.file(path)

    def say(self, status, body=b"", kind="text/html", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def file(self, path, content=None, **headers):
        """A file, or the fault that is next for its path."""
        content = self.served.files.get(path) if content is None else content
        fault = self.served.faults[path].pop(0) if self.served.faults[path] else ""
        if content is None or fault == "404":
            self.say(404, b"<html><head><title>Not here</title></head></html>")
        elif fault.isdigit():
            self.say(int(fault), QUOTA_PAGE if fault == "403" else b"", Retry_After="0")
        elif fault in PAGES:
            self.say(200, PAGES[fault])
        elif fault == "redirect":
            self.say(302, Location=f"http://localhost:{self.served.port}{path}")
        elif fault == "hang":
            time.sleep(0.2)
            self.close_connection = True
        else:
            self.bytes(path, content, fault, headers)

    def bytes(self, path, content, fault, headers):
        if fault == "wrong":
            content = content[: len(content) // 2] + bytes(len(content) - len(content) // 2)
        if fault == "truncated":
            content = content[: len(content) // 2]
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        start, ranged = 0, self.headers.get("Range") if "no-range" not in self.served.always else None
        if ranged and self.headers.get("If-Range", etag) == etag:
            start = int(re.fullmatch(r"bytes=(\d+)-(\d*)", ranged)[1])
        whole, body = len(content), content[start:]
        status = 416 if start >= whole > 0 else 206 if start else 200
        self.served.asked.append((path, self.headers.get("Range"), status))
        self.send_response(status)
        if status in (206, 416):
            span = "*" if status == 416 else f"{start}-{whole - 1}"
            self.send_header("Content-Range", f"bytes {span}/{whole}")
            body = body if status == 206 else b""
        headers = {"Content-Type": "application/octet-stream"} | headers
        if "no-etag" not in self.served.always:
            headers = {"ETag": etag} | headers
        if "no-length" not in self.served.always:
            headers = {"Content-Length": str(len(body))} | headers
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.close_connection = fault == "cut" or "no-length" in self.served.always
        self.end_headers()
        if self.command != "HEAD":
            self.send_body(body[: len(body) // 2] if fault == "cut" else body, fault)

    def send_body(self, body, fault):
        pieces = 20 if fault == "slow" else 1
        step = max(1, len(body) // pieces)
        try:
            for start in range(0, len(body), step):
                self.wfile.write(body[start : start + step])
                time.sleep(self.served.slow_s if fault == "slow" else 0)
        except OSError:
            self.close_connection = True  # the client has gone

    def describe(self, repository, revision):
        """The Hub's answer about a repository."""
        files = {
            p.split("/", 3)[3]: c for p, c in self.served.files.items() if p.startswith(f"/{repository}/")
        }
        fault = self.served.faults["/api"].pop(0) if self.served.faults["/api"] else ""
        if fault.isdigit():
            self.say(int(fault), Retry_After="0")
        elif fault == "not-json":
            self.say(200, LOGIN_PAGE)
        elif not files or (self.served.private and self.headers.get("Authorization") != f"Bearer {TOKEN}"):
            self.say(401, b"{}", X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        elif revision not in (None, "main", COMMIT):
            self.say(404, b"{}", X_Error_Code="RevisionNotFound")
        else:
            siblings = [
                {
                    "rfilename": name,
                    "size": len(content),
                    "blobId": "0" * 40,
                    "lfs": {
                        "sha256": hashlib.sha256(content).hexdigest(),
                        "size": len(content),
                        "pointerSize": 134,
                    },
                }
                for name, content in files.items()
            ]
            body = {"_id": "1", "id": repository, "modelId": repository, "sha": COMMIT, "siblings": siblings}
            body["private"] = self.served.private
            self.say(200, json.dumps(body).encode(), "application/json")

    def resolve(self, repository, revision, name):
        """The Hub's answer about a file: a redirection to another host, which gets no token."""
        content = self.served.files.get(f"/{repository}/{name}")
        if self.served.private and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.say(401, X_Error_Code="RepoNotFound")
        elif content is None or revision not in ("main", COMMIT):
            self.say(404, X_Error_Code="EntryNotFound")
        else:
            sha256 = hashlib.sha256(content).hexdigest()
            place = f"http://localhost:{self.served.port}/{repository}/{name}"
            linked = {"X_Linked_Etag": f'"{sha256}"', "X_Linked_Size": str(len(content))}
            self.say(302, Location=place, ETag=f'"{sha256}"', X_Repo_Commit=COMMIT, **linked)

    def drive(self, query):
        """Google Drive's answers: the file, for large ones first a question, or a page."""
        identity = query["id"][0]
        path = f"/drive/{identity}"
        if self.served.faults[path][:1] == ["confirm"]:
            self.served.faults[path].pop(0)
            self.say(200, CONFIRM_PAGE % identity.encode(), "text/html; charset=utf-8")
        else:
            name = 'attachment; filename="model_best.pth"'
            self.file(path, Content_Disposition=name, Last_Modified="Wed, 01 Jul 2020 00:00:00 GMT")


PAGES = {"quota": QUOTA_PAGE, "page": LOGIN_PAGE, "empty": b""}
