"""The upload side of the Hugging Face Hub, as huggingface_hub's client asks for it, on top of the file host.

Repositories, the check of a card's YAML, preupload, the LFS batch, storage, and the commit that makes it all
visible at once: until then a repository has the files of its last commit.
"""

import base64
import hashlib
import json
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import filehost
import yaml
from filehost import COMMIT, TOKEN, Answers, Host

LFS_BYTES = 4096
"""Larger files go through LFS; the real limit is 10 MB, or what .gitattributes says."""


@dataclass
class Hub(Host):
    """What was uploaded, beside what is served."""

    repositories: set[str] = field(default_factory=set)
    hurried: bool = True
    """Whether a fault says that the next try may come at once."""
    owners: set[str] = field(default_factory=lambda: {"ann"})
    """Whom the token may write for."""
    stored: dict[str, bytes] = field(default_factory=dict)
    """LFS objects by sha256."""
    steps: list[str] = field(default_factory=list)
    """What was asked of the upload side, in order."""
    commits: list[str] = field(default_factory=list)
    """Their titles."""

    def files_of(self, repository):
        start = f"/{repository}/"
        return {p.removeprefix(start): content for p, content in self.files.items() if p.startswith(start)}


@contextmanager
def hub_server():
    """The Hub, as long as the block goes on."""
    with filehost.file_host(Hub, Uploads) as hub:
        yield hub


class Uploads(Answers):
    """One connection; downloads are the file host's."""

    def do_POST(self):  # noqa: N802
        path = urlsplit(self.path).path
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        for pattern, step, answer in (
            (r"/api/repos/create", "create", self.create),
            (r"/api/validate-yaml", "validate", self.validate),
            (r"/api/models/([^/]+/[^/]+)/preupload/main", "preupload", self.preupload),
            (r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", "batch", self.batch),
            (r"/verify/(.+)", "verify", self.verify),
            (r"/api/models/([^/]+/[^/]+)/commit/main", "commit", self.commit),
        ):
            if found := re.fullmatch(pattern, path):
                return self.guarded(step, lambda: answer(body, *found.groups()))  # noqa: B023
        return self.say(404)

    def do_PUT(self):  # noqa: N802
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.guarded("store", lambda: self.store(body, self.path.rpartition("/")[2]), token=False)

    def guarded(self, step, answer, *, token=True):
        """The answer, unless a fault is next, or the token is wrong."""
        self.served.steps.append(step)
        self.served.tokens.append((step, self.headers.get("Authorization")))
        fault = self.served.faults[step].pop(0) if self.served.faults[step] else ""
        if fault.isdigit():
            hurry = {"Retry_After": "0"} if self.served.hurried else {}
            self.say(int(fault), b'{"error": "so it is"}', "application/json", **hurry)
        elif fault == "cut":
            self.close_connection = True  # without a word
        elif fault == "page":
            self.say(200, filehost.LOGIN_PAGE)
        elif token and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.say(401, X_Error_Message="Invalid credentials in Authorization header")
        else:
            answer()
            if fault == "lost":  # done, and the answer does not arrive
                self.close_connection = True

    def json(self, content, status=200):
        self.say(status, json.dumps(content).encode(), "application/json")

    def create(self, body):
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        answer = {"url": self.served.url(f"/{name}"), "name": name}
        if asked["organization"] not in self.served.owners:
            self.json({"error": "You don't have the rights to create a model under this namespace"}, 403)
        elif name in self.served.repositories:
            self.json(answer | {"error": "You already created this model repo"}, 409)
        else:
            self.served.repositories.add(name)
            self.served.private = asked.get("visibility") == "private"
            self.json(answer)

    def describe(self, repository, revision):
        """As the file host does; a repository may have no files yet."""
        if repository not in self.served.repositories or self.served.files_of(repository):
            super().describe(repository, revision)
        else:
            private = self.served.private
            self.json({"_id": "1", "id": repository, "sha": COMMIT, "siblings": [], "private": private})

    def validate(self, body):
        front = re.match(r"---\n(.*?)\n---\n", json.loads(body)["content"], re.DOTALL)
        card = yaml.safe_load(front[1]) if front else {}
        missing = [key for key in ("license", "library_name", "pipeline_tag") if key not in card]
        warnings = [{"message": f"{key} is missing"} for key in missing]
        self.json({"errors": [], "warnings": warnings})

    def preupload(self, body, repository):
        if repository not in self.served.repositories:
            return self.say(404, X_Error_Code="RepoNotFound")
        there = self.served.files_of(repository)
        return self.json(
            {
                "files": [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if file["size"] > LFS_BYTES else "regular",
                        "shouldIgnore": False,
                        "oid": oid(there.get(file["path"]), large=file["size"] > LFS_BYTES),
                    }
                    for file in json.loads(body)["files"]
                ]
            }
        )

    def batch(self, body, repository):
        objects = []
        for wanted in json.loads(body)["objects"]:
            sha256 = wanted["oid"]
            links = {
                "upload": {"href": self.served.url(f"/store/{sha256}")},
                "verify": {"href": self.served.url(f"/verify/{sha256}")},
            }
            objects.append(wanted | ({} if sha256 in self.served.stored else {"actions": links}))
        self.json({"transfer": "basic", "objects": objects})

    def store(self, body, sha256):
        assert hashlib.sha256(body).hexdigest() == sha256
        self.served.stored[sha256] = body
        self.say(200)

    def verify(self, body, sha256):
        self.say(200 if len(self.served.stored[sha256]) == json.loads(body)["size"] else 422)

    def commit(self, body, repository):
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                self.served.commits.append(value["summary"])
            elif entry["key"] == "file":
                content = base64.b64decode(value["content"])
                self.served.files[f"/{repository}/{value['path']}"] = content
            elif entry["key"] == "deletedFile":
                del self.served.files[f"/{repository}/{value['path']}"]
            else:
                self.served.files[f"/{repository}/{value['path']}"] = self.served.stored[value["oid"]]
        address = self.served.url(f"/{repository}/commit/{COMMIT}")
        self.json({"success": True, "commitUrl": address, "commitOid": COMMIT})


def oid(content, *, large):
    """What the Hub says of a file that is there: the sha256 of a large one, git's hash of a small one."""
    if content is None:
        return None
    if large:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
