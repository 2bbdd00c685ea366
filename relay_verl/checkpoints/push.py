"""Uploads an exported folder to a repository of the Hugging Face hub, or of a server with its API (HF_ENDPOINT).

Invariant: nothing is uploaded unless the folder is an export with a card; the upload is one commit, so that a reader of
the repository sees all of it or nothing. A second upload sends only what is new.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from relay_verl.checkpoints.card import CARD_FILE
from relay_verl.checkpoints.relay_file import RELAY_FILE
from relay_verl.errors import UserError, first_line

logger = logging.getLogger(__name__)

SILENCE_S = 120.0
"""Seconds of the hub's silence after which a request fails; huggingface_hub sets no limit of its own."""
_IGNORED = [".*", "**/.*"]


@dataclass(frozen=True)
class HubRepository:
    """Where an export goes."""

    name: str
    """`owner/name`."""
    is_private: bool = False
    """Whether a repository that is created is private; one that is there stays as it is."""

    def check(self) -> None:
        """The name is valid, the hub answers, and its user may write there: before minutes of merging.

        Raises:
            UserError: one of these does not hold.
        """
        from huggingface_hub import HfApi, constants
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id

        try:
            validate_repo_id(self.name)
        except HFValidationError as error:
            raise UserError(f"--push: {self.name!r}: {first_line(error)}") from None
        if self.name.count("/") != 1:
            raise UserError(f"--push: {self.name!r}: expected OWNER/NAME")
        if constants.HF_HUB_OFFLINE:
            raise UserError(f"--push: {self.name}: HF_HUB_OFFLINE is set; unset it")
        with _asking(self.name):
            owner, user = self.name.partition("/")[0], HfApi().whoami()
        owners = [user.get("name"), *(each.get("name") for each in user.get("orgs") or ())]
        if owner not in owners:
            names = ", ".join(name for name in owners if name)
            raise UserError(f"--push: {self.name}: the token's user may write for {names}, not for {owner}")

    def upload(self, folder: Path, message: str) -> str:
        """Upload all of `folder`; gives the repository's address.

        Raises:
            UserError: the folder has no card, or the hub refuses or does not answer.
        """
        from huggingface_hub import HfApi

        if not (folder / CARD_FILE).is_file():
            raise UserError(f"--push: {folder} has no {CARD_FILE}; the export's warning says why")
        if not (folder / RELAY_FILE).is_file():
            logger.warning("relay_verl: %s has no %s: whoever serves it takes the defaults", folder, RELAY_FILE)
        with _asking(self.name):
            api = HfApi()
            address = api.create_repo(self.name, private=self.is_private or None, exist_ok=True)
            api.upload_folder(repo_id=self.name, folder_path=folder, commit_message=message, ignore_patterns=_IGNORED)
        return str(address)


@contextmanager
def _asking(name: str) -> Iterator[None]:
    """A block that asks the hub, with a limit on its silence; what goes wrong becomes a UserError."""
    from huggingface_hub import constants, get_session
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    session = get_session()
    before, session.timeout = session.timeout, httpx.Timeout(SILENCE_S)
    where = f"--push: {name}: {constants.ENDPOINT}"
    try:
        yield
    except LocalTokenNotFoundError:
        raise UserError(f"--push: {name}: no token: set HF_TOKEN, or log in with `hf auth login`") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        hint = {401: ": is HF_TOKEN right?", 403: ": may the token write there?"}.get(status, "")
        said = error.server_message or first_line(error)
        raise UserError(f"{where} answers {status}{hint} ({said:.200})") from None
    except httpx.HTTPError as error:
        raise UserError(f"{where} does not answer ({type(error).__name__}: {first_line(error)})") from None
    except (ValueError, OSError) as error:  # such as a card that the hub does not take
        if isinstance(error, UserError):
            raise
        raise UserError(f"{where}: {' '.join(str(error).split()):.300}") from None
    finally:
        session.timeout = before
