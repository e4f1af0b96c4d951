"""The files of a trained agent, wherever they are, and what is raised where they cannot be used."""

from dataclasses import dataclass
from pathlib import Path

# The Zoo's name for the file of VecNormalize's statistics, and the hub's
ZOO_STATISTICS, HUB_STATISTICS = "vecnormalize.pkl", "vec_normalize.pkl"
STATISTICS = (ZOO_STATISTICS, HUB_STATISTICS)


class AgentError(ValueError):
    """An agent cannot be used, whether as teacher or as student; the message says why and what to do."""


class AgentNotFoundError(AgentError, FileNotFoundError):
    """There are no such files."""


@dataclass(frozen=True)
class AgentFiles:
    """
    The files of one trained agent.

    :param zip_path: what ``model.save`` wrote
    :param folder: the Zoo's folder beside it, with config.yml, args.yml, vecnormalize.pkl; None where there is none
    :param run_folder: the Zoo's run folder, with evaluations.npz and results.yml; None where there is none
    :param algo: the algorithm, as far as the place tells
    :param env_id: the environment, as far as the place tells
    """

    zip_path: Path
    folder: Path | None = None
    run_folder: Path | None = None
    algo: str | None = None
    env_id: str | None = None

    @property
    def normalization(self) -> Path | None:
        """The file of VecNormalize's statistics; None where it is not there."""
        found = [self.folder / name for name in STATISTICS if (self.folder / name).is_file()] if self.folder else []
        return found[0] if found else None

    def yaml(self, name: str) -> Path | None:
        """A YAML file of the run, e.g. "config.yml"; None where it is not there."""
        places = [place / name for place in (self.folder, self.run_folder) if place is not None]
        return next((place for place in places if place.is_file()), None)
