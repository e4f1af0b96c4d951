"""A run that is resumed goes on in its own folder of TensorBoard."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import configure

from sb3_distill.common.files import check_name


def tensorboard_run(model: BaseAlgorithm) -> str | None:
    """
    :param model: a model that learns
    :return: name of the folder in its ``tensorboard_log`` into which it writes; None if there is none
    """
    is_used = model.tensorboard_log is not None and not model._custom_logger and hasattr(model, "_logger")
    return Path(model.logger.dir).name if is_used and model.logger.dir is not None else None


@contextmanager
def tensorboard_goes_on(model: BaseAlgorithm, name: str | None) -> Iterator[None]:
    """
    Let SB3 set up learning with the folder that the run had; by itself, it takes the newest, be it another run's.

    :param model: a model that was put into the state of a run
    :param name: what ``tensorboard_run`` said when the state was written
    :return: a context
    :raises ValueError: the name would lead to another folder
    """
    if name is None or model.tensorboard_log is None or model._custom_logger:
        yield
        return
    from torch.utils.tensorboard import SummaryWriter

    folder = str(Path(model.tensorboard_log, check_name("tensorboard_run", name)))
    # What stands there after the checkpoint is hidden, because the run writes it again.
    SummaryWriter(folder, purge_step=model.num_timesteps + 1).close()
    model.set_logger(configure(folder, ["stdout", "tensorboard"] if model.verbose >= 1 else ["tensorboard"]))
    try:
        yield
    finally:
        model._custom_logger = False
