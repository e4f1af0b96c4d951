"""The configurations that we ship."""

from pathlib import Path


def default_config(name: str) -> Path:
    """
    Path of the hyperparameters that we ship for an algorithm, or of those of the papers ("strict").

    :param name: key of ``ALGORITHMS``, or "strict"
    :return: path of a YAML file
    """
    package = Path(__file__).parents[1]
    # As in the Zoo, the folder is inside the package if it was installed from a wheel, and else at the top of the
    # repository.
    folder = package / "hyperparams"
    return (folder if folder.is_dir() else package.parent / "hyperparams") / f"{name}.yml"
