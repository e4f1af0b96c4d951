"""Agents on the Hugging Face hub."""

import re
import socket
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from sb3_distill.agents.config import read_yaml
from sb3_distill.agents.files import HUB_STATISTICS, AgentError, AgentFiles, AgentNotFoundError
from sb3_distill.common.log import explained_wait

_VERSIONED = re.compile(r".+?-v\d+(?=-|$)")


def download(source: str, local_only: bool = False) -> AgentFiles:
    """
    :param source: ``hub:owner/algo-env``, optionally followed by ``-anything`` and ``@revision``
    :param local_only: take what the local cache has, and do not ask the hub
    :return: the files of the agent in the local cache, all from one commit
    :raises AgentNotFoundError: the repository does not exist, or it has no agent in it
    :raises AgentError: the name does not have this form, or the hub cannot be reached
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

    repository, _, revision = source.removeprefix("hub:").partition("@")
    owner, _, name = repository.partition("/")
    algo, _, env_id = name.partition("-")
    # What follows the version of the environment tells one repository from another.
    if (versioned := _VERSIONED.match(env_id)) is not None:
        env_id = versioned[0]
    file = f"{algo}-{env_id}.zip"
    if not owner or not env_id:
        raise AgentError(
            f"{source!r} does not name a repository: write 'hub:owner/algo-env', e.g. 'hub:sb3/dqn-CartPole-v1', "
            "optionally followed by @revision."
        )

    wait = (
        f"Still waiting for {source} from the hub. Without a network, give a local zip or run folder, or set HF_HOME."
    )
    try:
        with explained_wait(wait):
            cache_only = local_only or not _has_address()
            zip_path = Path(hf_hub_download(repository, file, revision=revision or None, local_files_only=cache_only))
            # Fetch the other files from the same commit, even if a newer one is pushed meanwhile.
            folder = zip_path.parent
            for filename in ("config.yml", "args.yml"):
                _fetch_if_there(repository, filename, folder.name, cache_only)
            if read_yaml(folder / "config.yml").get("normalize", True):
                _fetch_if_there(repository, HUB_STATISTICS, folder.name, cache_only)
    except AgentError:
        raise
    except LocalEntryNotFoundError as error:
        raise AgentError(
            f"{source} is not completely in the local cache, and the hub "
            f"{'was not asked' if local_only else 'cannot be reached'}. Connect once, set HF_HOME "
            "to a cache that has it, or give a local zip or run folder."
        ) from error
    except (RepositoryNotFoundError, EntryNotFoundError) as error:
        raise AgentNotFoundError(f"The hub has no {source} with {file} in it") from error
    except Exception as error:
        # The hub's client passes on the errors of its HTTP library, which differ between its versions.
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise AgentError(
            f"{source} could not be downloaded ({reason}). Check the connection, or give a local zip or run folder."
        ) from error
    return AgentFiles(zip_path, folder, None, algo, env_id)


def _has_address() -> bool:
    """
    Whether the name of the hub leads anywhere. Without a network it does not, and its client would ask again for half a
    minute.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        # Nobody will be asked.
        return False
    if getproxies().keys() & {"http", "https", "all"}:
        # The proxy looks it up.
        return True
    host = urlsplit(constants.ENDPOINT).hostname
    for _ in range(2):
        try:
            socket.getaddrinfo(host, None)
            return True
        except socket.gaierror as error:
            if error.errno != socket.EAI_AGAIN:
                break
    return False


def _fetch_if_there(repository: str, filename: str, commit: str, local_only: bool) -> None:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        hf_hub_download(repository, filename, revision=commit, local_files_only=local_only)
    except LocalEntryNotFoundError:
        # Without a connection, the cache may still know that the repository does not have this file. If it does not
        # know (None), stop: the agent might be loaded without its normalization statistics.
        if try_to_load_from_cache(repository, filename, revision=commit) is None:
            raise
    except EntryNotFoundError:
        pass
