"""The classes that files may name: they are looked up here, and nothing is imported."""

from typing import Any

from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, NatureCNN

from sb3_distill.agents.rebuild.weights import ACTIVATIONS
from sb3_distill.networks.extractors import GridCNN, StudentCNN
from sb3_distill.networks.optimizers import OPTIMIZERS

# By the argument that takes a class, its classes by their names
CLASSES: dict[str, dict[str, type]] = {
    "activation_fn": dict(ACTIVATIONS),
    "optimizer_class": dict(OPTIMIZERS),
    "features_extractor_class": {
        cls.__name__: cls for cls in (FlattenExtractor, NatureCNN, CombinedExtractor, StudentCNN, GridCNN)
    },
    "replay_buffer_class": {cls.__name__: cls for cls in (ReplayBuffer, DictReplayBuffer)},
}
_BY_PATH = {f"{cls.__module__}.{cls.__name__}": cls for named in CLASSES.values() for cls in named.values()}


class ClassName(str):
    """The full name of a class of ``CLASSES``, where a file has the class itself."""

    def __new__(cls, name: str) -> "ClassName":
        """
        :param name: its module and name, such as "torch.nn.modules.activation.ReLU"
        :raises ValueError: it is not in ``CLASSES``
        """
        if name not in _BY_PATH:
            known = ", ".join(known for named in CLASSES.values() for known in named)
            raise ValueError(f"the class {name} is not known; known are: {known}")
        return super().__new__(cls, name)


def with_classes(value: Any) -> Any:
    """
    :param value: a value of a file, with names of classes in it
    :return: the same with the classes themselves
    """
    if isinstance(value, ClassName):
        return _BY_PATH[value]
    if isinstance(value, dict):
        return {key: with_classes(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(with_classes, value))
    return value
