"""Shared helpers to rebuild policies from weights: hidden layers, features extractors, activation functions."""

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
    :param name: the name in the files: "nn.ReLU", "<class 'torch.nn.modules.activation.ReLU'>", or None
    :param default: the algorithm's default, used if the name is None
    :return: the activation's class
    :raises AgentError: the activation is not one of ``ACTIVATIONS``
    """
    if name is None:
        return default
    module, _, short = str(name).removeprefix("<class ").strip("'>").rpartition(".")
    # Check the module too: a custom class may have the name of one of torch's.
    if short not in ACTIVATIONS or module not in ("", "nn", "th.nn", "torch.nn", "torch.nn.modules.activation"):
        raise AgentError(
            f"The activation function {name!r} is not known; known are {', '.join(ACTIVATIONS)}. Pass the agent as a "
            "loaded SB3 model."
        )
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
    """Policy arguments for the features extractor with these weights: one of SB3's, or ``GridCNN``."""
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
            f"weights: {' '.join(str(error).split())}. Pass an agent with custom layers as a loaded SB3 model, or, if "
            "you trust its file, pass allow_pickle=True to load_teacher."
        ) from error
    return policy


def _no_learning_rate(_: float) -> float:
    return 0.0
