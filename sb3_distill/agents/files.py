"""The files of a trained agent, the score that they record, and the errors for agents that cannot be used."""

import re
from dataclasses import dataclass
from pathlib import Path

# How a user hands over an agent whose files cannot be used
AS_MODEL = (
    "as a loaded SB3 model (in a command: name a function that returns it, package.module:function, with "
    "--gym-packages package)"
)
# Names of the file with VecNormalize's statistics, in the Zoo and on the hub
ZOO_STATISTICS, HUB_STATISTICS = "vecnormalize.pkl", "vec_normalize.pkl"
STATISTICS = (ZOO_STATISTICS, HUB_STATISTICS)
# What the Zoo writes of a run beside its zip
SETTINGS = ("args.yml", "config.yml", *STATISTICS)
# Name of the zip that SB3's EvalCallback writes, without the ending, and of the statistics that are kept with it
BEST_MODEL, BEST_STATISTICS = "best_model", "best_model_vecnormalize.pkl"
# Beside the checkpoints of a run: the state of the newest one, with which the run can be resumed
RUN_STATE = "run_state.zip"
# Name of the zip that SB3's CheckpointCallback writes, without the ending
CHECKPOINT = re.compile(r"(?P<prefix>.+)_(?P<steps>\d+)_steps")


def checkpoints_in(run: Path) -> dict[int, Path]:
    """
    :param run: a run folder
    :return: the zips of its checkpoints, by their numbers of steps
    """
    return {int(match["steps"]): path for path in run.glob("*.zip") if (match := CHECKPOINT.fullmatch(path.stem))}


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
    def _own_statistics_paths(self) -> list[Path]:
        """Where the statistics can be that were saved with the best model of a run, or with a checkpoint."""
        checkpoint = CHECKPOINT.fullmatch(self.zip_path.stem)
        own = [BEST_STATISTICS] if self.zip_path.stem == BEST_MODEL else []
        if checkpoint is not None:
            # SB3's CheckpointCallback, then the Zoo's SaveVecNormalizeCallback with one prefix or another
            prefix, steps = checkpoint["prefix"], f"{checkpoint['steps']}_steps.pkl"
            own = [f"{prefix}_vecnormalize_{steps}", f"{prefix}_{steps}", f"vecnormalize_{steps}"]
        return [self.zip_path.parent / name for name in own]

    @property
    def statistics_paths(self) -> list[Path]:
        """Where VecNormalize's statistics can be: those saved with the zip first, then those of the run."""
        places = dict.fromkeys(place for place in (self.folder, self.zip_path.parent) if place is not None)
        return [*self._own_statistics_paths, *(place / name for place in places for name in STATISTICS)]

    @property
    def normalization(self) -> Path | None:
        """The file with VecNormalize's statistics; None if it does not exist."""
        return next((path for path in self.statistics_paths if path.is_file()), None)

    @property
    def statistics_note(self) -> str | None:
        """What is to be said where the statistics may be of another moment than the zip; None if they are its own."""
        found, own = self.normalization, self._own_statistics_paths
        if found is None or not own or found in own:
            return None
        place = self.zip_path.parent
        return (
            f"No VecNormalize statistics were saved with {self.zip_path.name}. It plays with those of "
            f"{found.relative_to(place) if found.is_relative_to(place) else found}, which may be from another moment "
            "of the run, so its score may not be the one for which it was saved."
        )

    def yaml(self, name: str) -> Path | None:
        """A YAML file of the run, e.g. "config.yml"; None if it does not exist."""
        places = [place / name for place in (self.folder, self.run_folder) if place is not None]
        return next((place for place in places if place.is_file()), None)

    @property
    def summary(self) -> str:
        """One line that says which files are read, and which were looked for and are not there."""
        place = self.zip_path.parent
        read = {name: self.yaml(name) for name in ("args.yml", "config.yml")}
        read[" or ".join(dict.fromkeys(path.name for path in self.statistics_paths))] = self.normalization
        found = ", ".join(
            str(path.relative_to(place) if path.is_relative_to(place) else path) for path in read.values() if path
        )
        # Where a configuration is there, it says whether there should be statistics.
        n_told = 2 if read["config.yml"] is not None else 3
        missing = ", ".join(name for name, path in list(read.items())[:n_told] if path is None)
        return f"{self.zip_path}" + (f" with {found}" if found else "") + (f"; not found: {missing}" if missing else "")


@dataclass(frozen=True)
class EvaluationScore:
    """
    What the evaluations during a run say of its agent.

    :param best_mean: the highest mean return
    :param best_std: standard deviation of the returns there
    :param last_mean: the mean return of the last evaluation
    :param last_std: standard deviation of the returns there
    :param episodes: episodes of each evaluation
    """

    best_mean: float
    best_std: float
    last_mean: float
    last_std: float
    episodes: int
