"""What all policies have in common that are rebuilt from weights: layers, extractors, activation functions."""

from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, NatureCNN
from torch import nn

from sb3_distill.agents.files import AgentError
from sb3_distill.networks.extractors import GridCNN

Weights = dict[str, th.Tensor]
ACTIVATIONS: dict[str, type[nn.Module]] = {
    cls.__name__: cls
    for cls in (nn.Tanh, nn.ReLU, nn.ELU, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.SELU, nn.Softplus, nn.Sigmoid, nn.Mish)
}


def read_activation(name: Any, default: type[nn.Module]) -> type[nn.Module]:
    """
    :param name: as the files have it: "nn.ReLU", "<class 'torch.nn.modules.activation.ReLU'>", or None
    :param default: what the algorithm takes where nothing is said
    :return: the activation's class
    :raises AgentError: it is not in the list of known ones
    """
    if name is None:
        return default
    module, _, short = str(name).removeprefix("<class ").strip("'>").rpartition(".")
    # Not somebody's own class of a known name
    if short not in ACTIVATIONS or module not in ("", "nn", "th.nn", "torch.nn", "torch.nn.modules.activation"):
        raise AgentError(f"The activation function {name!r} is not known: known are {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[short]


def _widths(weights: Weights, prefix: str) -> list[int]:
    """Output sizes of the linear layers of an ``nn.Sequential``, in order."""
    layers = {
        int(name[len(prefix) :].split(".")[0]): tensor.shape[0]
        for name, tensor in weights.items()
        if name.startswith(prefix) and name.endswith(".weight")
    }
    return [layers[index] for index in sorted(layers)]


def _extractor(weights: Weights, prefix: str, space: spaces.Space, normalize_images: bool) -> dict[str, Any]:
    """Keyword arguments of the features extractor that has these weights: SB3's own, or ``GridCNN``."""
    if f"{prefix}cnn.0.weight" in weights and f"{prefix}cnn.2.weight" not in weights:
        channels, linear = weights[f"{prefix}cnn.0.weight"].shape[0], weights[f"{prefix}linear.0.weight"]
        pool = "max" if linear.shape[1] == channels else None
        grid = {"channels": channels, "features_dim": linear.shape[0], "pool": pool}
        return {"features_extractor_class": GridCNN, "features_extractor_kwargs": grid}
    if f"{prefix}linear.0.weight" in weights:
        kwargs: dict[str, Any] = {"features_dim": weights[f"{prefix}linear.0.weight"].shape[0]}
        if not normalize_images:
            kwargs["normalized_image"] = True
        return {"features_extractor_class": NatureCNN, "features_extractor_kwargs": kwargs}
    if isinstance(space, spaces.Dict):
        cnn_dims = {tensor.shape[0] for name, tensor in weights.items() if name.endswith("linear.0.weight")}
        kwargs = {"cnn_output_dim": cnn_dims.pop()} if cnn_dims else {}
        return {"features_extractor_class": CombinedExtractor, "features_extractor_kwargs": kwargs}
    return {"features_extractor_class": FlattenExtractor}


def _load(policy: BasePolicy, weights: Weights, what: str) -> Any:
    try:
        policy.load_state_dict(weights)
    except RuntimeError as error:
        raise AgentError(
            f"The {what} agent does not have the stock architecture of its algorithm, so it cannot be rebuilt from its "
            f"weights: {' '.join(str(error).split())}. An agent of your own with custom layers can be given as a "
            "loaded SB3 model, or with allow_pickle=True where you trust its file."
        ) from error
    return policy


def _no_learning_rate(_: float) -> float:
    return 0.0
