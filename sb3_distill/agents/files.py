"""The files of a trained agent, and the errors for agents that cannot be used."""

from dataclasses import dataclass
from pathlib import Path

# Names of the file with VecNormalize's statistics, in the Zoo and on the hub
ZOO_STATISTICS, HUB_STATISTICS = "vecnormalize.pkl", "vec_normalize.pkl"
STATISTICS = (ZOO_STATISTICS, HUB_STATISTICS)


class AgentError(ValueError):
    """An agent (teacher or student) cannot be used; the message says why and what to do."""


class AgentNotFoundError(AgentError, FileNotFoundError):
    """The files of an agent do not exist."""


@dataclass(frozen=True)
class AgentFiles:
    """
    The files of one trained agent.

    :param zip_path: the zip that ``model.save`` wrote
    :param folder: the folder with config.yml, args.yml and vecnormalize.pkl, which the Zoo writes beside the zip; None
        if there is none
    :param run_folder: the Zoo's run folder, with evaluations.npz and results.yml; None if there is none
    :param algo: the algorithm, if the path or the repository's name tells it
    :param env_id: the environment's id, if the path or the repository's name tells it
    """

    zip_path: Path
    folder: Path | None = None
    run_folder: Path | None = None
    algo: str | None = None
    env_id: str | None = None

    @property
    def normalization(self) -> Path | None:
        """The file with VecNormalize's statistics; None if it does not exist."""
        found = [self.folder / name for name in STATISTICS if (self.folder / name).is_file()] if self.folder else []
        return found[0] if found else None

    def yaml(self, name: str) -> Path | None:
        """A YAML file of the run, e.g. "config.yml"; None if it does not exist."""
        places = [place / name for place in (self.folder, self.run_folder) if place is not None]
        return next((place for place in places if place.is_file()), None)
