"""A hub of models on this machine: as much of the Hugging Face hub's API as its library calls."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_of_the_tests"  # may read and write everything
READER = "hf_reader"  # may read, and write nothing
LARGE = (".safetensors", ".png", ".pkl", ".bin")  # kept in large file storage


@dataclass
class Repo:
    """A repository: its commits, and what its branches and tags mean."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False
    kind: str = "model"

    def commit(self, files: Mapping[str, bytes], branch: str = "main") -> str:
        """A new commit with these files besides those that are there."""
        whole = {**self.commits.get(self.refs.get(branch, ""), {}), **files}
        text = "".join(f"{name} {oid(x)}" for name, x in sorted(whole.items()))
        sha = hashlib.sha1(f"{len(self.commits)} {text}".encode()).hexdigest()
        self.commits[sha], self.refs[branch] = whole, sha
        return sha

    def resolve(self, revision: str) -> str | None:
        return self.refs.get(revision, revision if revision in self.commits else None)


def oid(content: bytes) -> str:
    """How git names a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Hub(ThreadingHTTPServer):
    """The server; `repos` are what it holds, `requests` what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, Repo] = {}
        self.requests: list[tuple[str, str]] = []
        self.large: dict[str, bytes] = {}
        self.busy = 0  # status of every answer, where the hub has no time
        self.chunks = ""  # a folder where hf_xet keeps large files, instead of a service

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, name: str, files: Mapping[str, bytes], **settings: Any) -> str:
        """Put files into a repository; its commit."""
        repo = self.repos.setdefault(name, Repo(**settings))
        return repo.commit(files)

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        """What is in a repository."""
        repo = self.repos[name]
        return repo.commits[repo.refs.get(revision, revision)]


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass

    @property
    def token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _answer(self) -> None:
        split = urlsplit(self.path)
        self.query, path = parse_qs(split.query), unquote(split.path)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.requests.append((self.command, path))
        if self.server.busy:
            self._refuse(self.server.busy, "", "Too Many Requests")
            return
        for pattern, method in ROUTES:
            if match := re.fullmatch(pattern, path):
                getattr(self, method)(**match.groupdict())
                return
        self._refuse(404, "NotFound", f"no {path}")

    def _send(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(json.dumps(value).encode(), status, Content_Type="application/json")

    def _refuse(self, status: int, code: str, message: str) -> None:
        body = json.dumps({"error": message}).encode()
        self._send(body, status, X_Error_Code=code, X_Error_Message=message)

    def _repo(self, name: str, kind: str = "model", files: bool = False) -> Repo | None:
        """The repository that may be read; else it is refused as the hub does."""
        repo = self.server.repos.get(name)
        known = self.token in (TOKEN, READER)
        if repo is None or repo.kind != kind or (repo.private and not known):
            self._refuse(404 if known else 401, "RepoNotFound", "Repository not found")
            return None
        if files and repo.gated and not known:
            self._refuse(401, "GatedRepo", f"Access to model {name} is restricted.")
            return None
        return repo

    def _commit_of(self, repo: Repo, revision: str) -> str | None:
        sha = repo.resolve(revision)
        if sha is None:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha

    def info(self, kind: str, name: str, revision: str | None = None) -> None:
        repo = self._repo(name, kind)
        if repo is None:
            return
        sha = self._commit_of(repo, revision or "main")
        if sha is not None:
            files = [{"rfilename": file} for file in sorted(repo.commits[sha])]
            self._json({"id": name, "sha": sha, "private": repo.private, "siblings": files})

    def tree(self, name: str, revision: str) -> None:
        repo = self._repo(name)
        sha = None if repo is None else self._commit_of(repo, revision)
        if repo is not None and sha is not None:
            self._json([_listed(file, x) for file, x in sorted(repo.commits[sha].items())])

    def resolve(self, name: str, revision: str, file: str) -> None:
        repo = self._repo(name, files=True)
        sha = None if repo is None else self._commit_of(repo, revision)
        if repo is None or sha is None:
            return
        content = repo.commits[sha].get(file)
        if content is None:
            self._refuse(404, "EntryNotFound", "Entry not found")
            return
        entry = _listed(file, content)
        tag = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
        self._send(content, X_Repo_Commit=sha, ETag=f'"{tag}"', X_Linked_Size=str(len(content)))

    def whoami(self) -> None:
        if self.token not in (TOKEN, READER):
            self._refuse(401, "", "Invalid credentials in Authorization header")
            return
        self._json({"type": "user", "name": "ann", "orgs": [], "auth": {}})

    def _may_write(self) -> bool:
        if self.token == TOKEN:
            return True
        status = 403 if self.token == READER else 401
        message = (
            "You don't have the rights" if self.token == READER else "Invalid username or password."
        )
        self._refuse(status, "", message)
        return False

    def create(self) -> None:
        if not self._may_write():
            return
        asked = json.loads(self.body)
        name = f"{asked.get('organization') or 'ann'}/{asked['name']}"
        if name in self.server.repos:
            self._json({"error": "You already created this model repo", "url": name}, 409)
            return
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        self.server.repos[name] = Repo(private=private)
        self.server.repos[name].commit({".gitattributes": b""})
        self._json({"url": f"{self.server.url}/{name}", "name": name})

    def branch(self, name: str, branch: str) -> None:
        repo = self._repo(name) if self._may_write() else None
        if repo is None:
            return
        if branch in repo.refs:
            self._json({"error": "Reference already exists"}, 409)
            return
        repo.refs[branch] = repo.refs["main"]
        self._json({})

    def validate(self) -> None:
        self._json({"errors": [], "warnings": []})

    def preupload(self, name: str, revision: str) -> None:
        if not self._may_write() or self._repo(name) is None:
            return
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(self.body)["files"]
        ]
        self._json({"files": files})

    def batch(self, name: str) -> None:
        if not self._may_write():
            return
        objects = [
            {
                **asked,
                "actions": {"upload": {"href": f"{self.server.url}/large/{asked['oid']}"}},
            }
            for asked in json.loads(self.body)["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def upload(self, sha: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != sha:
            self._refuse(422, "", "another hash")
            return
        self.server.large[sha] = self.body
        self._send(b"")

    def xet(self, name: str) -> None:
        """Where hf_xet puts the chunks of large files: a folder of this machine."""
        if not self._may_write() or self._repo(name) is None:
            return
        where = f"local://{self.server.chunks}"
        self._json({"casUrl": where, "accessToken": "of the tests", "exp": 9_999_999_999})

    def commit(self, name: str, revision: str) -> None:
        repo = self._repo(name) if self._may_write() else None
        if repo is None:
            return
        files: dict[str, bytes] = {}
        for line in map(json.loads, self.body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
        sha = repo.commit(files, revision)
        self._json({"commitOid": sha, "commitUrl": f"{self.server.url}/{name}/commit/{sha}"})


def _listed(file: str, content: bytes) -> dict[str, Any]:
    size = len(content)
    entry: dict[str, Any] = {"type": "file", "path": file, "size": size, "oid": oid(content)}
    if file.endswith(LARGE):
        sha = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": sha, "size": size, "pointerSize": 134}
    return entry


_REPO = r"(?P<name>[^/]+(/[^/]+)?)"
ROUTES = (
    (r"/api/whoami-v2", "whoami"),
    (r"/api/repos/create", "create"),
    (r"/api/validate-yaml", "validate"),
    (rf"/api/models/{_REPO}/preupload/(?P<revision>.+)", "preupload"),
    (rf"/api/models/{_REPO}/xet-write-token/.+", "xet"),
    (rf"/api/models/{_REPO}/commit/(?P<revision>.+)", "commit"),
    (rf"/api/models/{_REPO}/branch/(?P<branch>.+)", "branch"),
    (rf"/api/models/{_REPO}/tree/(?P<revision>[^/]+)/?", "tree"),
    (rf"/api/(?P<kind>model|dataset)s/{_REPO}/revision/(?P<revision>.+)", "info"),
    (rf"/api/(?P<kind>model|dataset)s/{_REPO}", "info"),
    (rf"/{_REPO}\.git/info/lfs/objects/batch", "batch"),
    (r"/large/(?P<sha>\w+)", "upload"),
    (rf"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<file>.+)", "resolve"),
)


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that runs meanwhile."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
