"""Repositories of the Hugging Face Hub -> the addresses, sizes and sha256 of their files.

huggingface_hub knows the Hub: its addresses, its tokens, its answers. The bytes come through `transfer`,
which goes on where it broke off and checks the sha256, as huggingface_hub does not.
"""

import logging
import re
from dataclasses import dataclass, field

from sancli.console import detail
from sancli.errors import SanError, WeightsError
from sancli.weights.fetching.retries import TransientError, Unreachable, no_way, retrying
from sancli.weights.fetching.transfer import PROXY, TRANSIENT, Remote

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
WEIGHTS = (".safetensors", ".pth", ".pt", ".bin", ".tar")
TIMEOUT = 30.0


@dataclass(frozen=True, kw_only=True)
class Repository:
    """The files of a repository, at one commit."""

    name: str
    commit: str
    files: dict[str, Remote] = field(repr=False)

    def weights(self) -> list[str]:
        """The files that may hold weights."""
        return sorted(file for file in self.files if file.endswith(WEIGHTS))


def open_repository(name: str, revision: str | None) -> Repository:
    """What is in the repository OWNER/NAME at a branch, a tag or a commit; None: at its newest commit.

    Raises:
        WeightsError: It is not there, is private, or the Hub does not answer.
    """
    import huggingface_hub

    logging.getLogger("huggingface_hub").setLevel(
        logging.ERROR
    )  # it advises to log in, also where none is needed
    api = huggingface_hub.HfApi(library_name="sancli")

    def ask() -> Repository:
        try:
            info = api.model_info(name, revision=revision, files_metadata=True, timeout=TIMEOUT)
        except (
            Exception
        ) as fault:  # the errors of its HTTP library, which it has changed twice, share no name
            detail(str(fault))
            raise _said(name, revision, fault) from None
        token = huggingface_hub.get_token()
        commit = info.sha or revision or "main"
        files = {
            sibling.rfilename: Remote(
                url=huggingface_hub.hf_hub_url(
                    name, sibling.rfilename, revision=commit, endpoint=api.endpoint
                ),
                label=f"{name}: {sibling.rfilename}",
                headers={"authorization": f"Bearer {token}"} if token else {},
                size=sibling.size,
                sha256=sibling.lfs.sha256 if sibling.lfs else None,
            )
            for sibling in info.siblings or []
        }
        return Repository(name=name, commit=commit, files=files)

    return retrying(ask)


def _said(name: str, revision: str | None, fault: Exception) -> TransientError | WeightsError:
    """The Hub's answer as our error; one that may pass by itself is to be tried again."""
    from huggingface_hub import errors as faults

    what = f"the repository {name} cannot be had."
    login = "check the name; for a private one log in with hf auth login, or set HF_TOKEN."
    if isinstance(fault, faults.OfflineModeIsEnabled):
        return WeightsError(what, why="HF_HUB_OFFLINE is set.", fix="unset it, or name a file with --from.")
    if isinstance(fault, faults.GatedRepoError):
        return WeightsError(
            what,
            why="its owner wants to be asked.",
            fix=f"ask at https://huggingface.co/{name}, then log in.",
        )
    if isinstance(fault, faults.RepositoryNotFoundError):
        return WeightsError(what, why="there is none of that name, or it is private.", fix=login)
    if isinstance(fault, faults.RevisionNotFoundError):
        return WeightsError(
            what, why=f"it has no revision {revision}.", fix="name a branch, a tag or a commit."
        )
    if isinstance(fault, faults.HfHubHTTPError):
        status = fault.response.status_code
        error = WeightsError(what, why=f"the Hub answers with HTTP {status}.", fix=login)
        return TransientError(error) if status in TRANSIENT else error
    fix = "check the connection; what was downloaded before works without one."
    return unreached(what, fault, fix=fix)


def unreached(what: str, fault: Exception, *, fix: str) -> TransientError | WeightsError:
    """What kept the Hub's answer away, as our error; one that may pass by itself is to be tried again."""
    kind, words = type(fault).__name__, " ".join(str(fault).split())[:160]
    if isinstance(fault, ValueError):  # an answer that is no JSON, an address that is none
        return WeightsError(what, why=f"the Hub was not understood: {words}.", fix="check HF_ENDPOINT.")
    if "Proxy" in kind:
        return Unreachable(what, why=f"the proxy does not let it through: {words}.", fix=PROXY)
    words = "it did not answer in time" if "Timeout" in kind else words or kind
    if why := no_way(str(fault)):
        return Unreachable(what, why=f"{why}.", fix=fix)
    return TransientError(WeightsError(what, why=f"the Hub was not reached: {words}.", fix=fix))


def chosen(repository: Repository, wanted: tuple[str, ...]) -> Remote:
    """The file of the repository that is meant: one of the wanted names, or else the only one that fits.

    Args:
        repository: Where it is.
        wanted: Beginnings of file names, without a folder, the best first.

    Raises:
        WeightsError: There is none, or there are several.
    """
    found = repository.weights()
    for name in wanted:
        fitting = [file for file in found if file.rpartition("/")[2].lower().startswith(name)]
        if len(fitting) > 1:
            fitting = [file for file in fitting if file.endswith(".safetensors")]
        if len(fitting) == 1:
            return repository.files[fitting[0]]
    if len(found) == 1:
        return repository.files[found[0]]
    raise no_file(repository, "several files may be meant" if found else "none of its files holds weights")


def no_file(repository: Repository, why: str) -> SanError:
    """That the file which was looked for is not in the repository, with what is there."""
    there = ", ".join(sorted(repository.files)[:6]) or "nothing"
    return WeightsError(
        f"{repository.name} does not say which file to take.",
        why=f"{why}; there are: {there}.",
        fix=f"name one: --from https://huggingface.co/{repository.name}/resolve/main/FILE",
    )
