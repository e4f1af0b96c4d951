"""Shared helpers to rebuild policies from weights: hidden layers, features extractors, activation functions."""

from collections.abc import Callable
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, NatureCNN
from torch import nn
from torch.overrides import TorchFunctionMode

from sb3_distill.agents.files import AS_MODEL, AgentError
from sb3_distill.networks.extractors import GridCNN, StudentCNN
from sb3_distill.reading.limits import MAX_LAYERS, check_size

Weights = dict[str, th.Tensor]
# Where builders find the module of the policy's class, beside the keywords of the policy
POLICY_MODULE = ":policy_module:"
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
            f"The activation function {name!r} is not known; known are {', '.join(ACTIVATIONS)}. Pass the agent "
            f"{AS_MODEL}."
        )
    return ACTIVATIONS[short]


def _widths(weights: Weights, prefix: str) -> list[int]:
    """Output sizes of the linear layers of an ``nn.Sequential``, in order."""
    layers = {
        int(name[len(prefix) :].split(".")[0]): tensor.shape[0]
        for name, tensor in weights.items()
        if name.startswith(prefix) and name.endswith(".weight")
    }
    check_size(f"The part {prefix.rstrip('.')} of the network", len(layers), MAX_LAYERS, "layers")
    return [layers[index] for index in sorted(layers)]


def _extractor(weights: Weights, prefix: str, space: spaces.Space, kwargs: dict[str, Any]) -> dict[str, Any]:
    """
    Policy arguments for the features extractor with these weights (one of SB3's or of this library's), and for the
    scaling of images before it, which no weight shows.
    """
    extractor = _extractor_class(weights, prefix, space)
    keywords = _EXTRACTOR_KEYWORDS[extractor](weights, prefix, space) if extractor in _EXTRACTOR_KEYWORDS else {}
    return {
        "features_extractor_class": extractor,
        "features_extractor_kwargs": keywords,
        "normalize_images": bool(kwargs.get("normalize_images", True)),
    }


def _extractor_class(weights: Weights, prefix: str, space: spaces.Space) -> type[BaseFeaturesExtractor]:
    if f"{prefix}scaler.mean" in weights:
        return StudentCNN
    if f"{prefix}cnn.0.weight" in weights and f"{prefix}cnn.2.weight" not in weights:
        return GridCNN
    if f"{prefix}linear.0.weight" in weights:
        return NatureCNN
    return CombinedExtractor if isinstance(space, spaces.Dict) else FlattenExtractor


def _student_cnn(weights: Weights, prefix: str, space: spaces.Space) -> dict[str, Any]:
    channels = [weights[f"{prefix}cnn.{layer}.weight"].shape[0] for layer in (0, 2, 4)]
    linear = weights[f"{prefix}linear.0.weight"]
    return {
        "channels": channels,
        "features_dim": linear.shape[0],
        "pool": "max" if linear.shape[1] == channels[-1] else None,
        "standardize": "frame" if weights[f"{prefix}scaler.mean"].numel() > 1 else "scalar",
    }


def _grid_cnn(weights: Weights, prefix: str, space: spaces.Space) -> dict[str, Any]:
    channels, linear = weights[f"{prefix}cnn.0.weight"].shape[0], weights[f"{prefix}linear.0.weight"]
    return {
        "channels": channels,
        "features_dim": linear.shape[0],
        "pool": "max" if linear.shape[1] == channels else None,
    }


def _nature_cnn(weights: Weights, prefix: str, space: spaces.Space) -> dict[str, Any]:
    # normalized_image leaves out a check, which the agent has passed.
    return {"features_dim": weights[f"{prefix}linear.0.weight"].shape[0], "normalized_image": True}


def _combined(weights: Weights, prefix: str, space: spaces.Space) -> dict[str, Any]:
    """With ``normalized_image``, boxes that are no images by their type and bounds have convolutions, too."""
    assert isinstance(space, spaces.Dict)
    layers = {key: weights.get(f"{prefix}extractors.{key}.linear.0.weight") for key in space.spaces}
    widths = [layer.shape[0] for layer in layers.values() if layer is not None]
    return {
        **({"cnn_output_dim": widths[0]} if widths else {}),
        "normalized_image": any(layers[key] is not None and not is_image_space(part) for key, part in space.items()),
    }


_EXTRACTOR_KEYWORDS = {
    StudentCNN: _student_cnn,
    GridCNN: _grid_cnn,
    NatureCNN: _nature_cnn,
    CombinedExtractor: _combined,
}


class _OnMeta(TorchFunctionMode):
    """
    Keeps tensors on the meta device where SB3 moves its networks to that of the policy, and answers where a number is
    asked of them: distributions check their parameters, quantizers choose steps. No shape depends on it.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (th.Tensor.__bool__, th.Tensor.__int__):
            return func is th.Tensor.__bool__ or 2
        return args[0] if func is th.Tensor.to else func(*args, **(kwargs or {}))


def _load(make: Callable[[], Any], weights: Weights, what: str) -> Any:
    """
    A policy with these weights. It is made without memory first: what a file says of spaces and layers takes memory
    only where its weights agree.
    """
    with th.device("meta"), _OnMeta():
        expected = {name: tensor.shape for name, tensor in make().state_dict().items()}
    problems = [f"missing: {name}" for name in expected.keys() - weights.keys()]
    problems += [f"unexpected: {name}" for name in weights.keys() - expected.keys()]
    problems += [
        f"size mismatch for {name}: {tuple(weights[name].shape)}, not {tuple(shape)}"
        for name, shape in expected.items()
        if name in weights and weights[name].shape != shape
    ]
    if problems:
        more = f", and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise AgentError(
            f"The {what} agent does not have the stock architecture of its algorithm, so it cannot be rebuilt from its "
            f"weights ({'; '.join(sorted(problems)[:8])}{more}). Pass an agent with custom layers "
            f"{AS_MODEL}, or, if you trust its file, load it with allow_pickle=True (export: --allow-pickle)."
        )
    policy = make()
    policy.load_state_dict(weights)
    return policy


class _NoOptimizer:
    """
    In place of the optimizer of a policy that only answers: with the first real one, PyTorch loads its compiler, which
    takes a second or more.
    """

    def __init__(self, *_: Any, **__: Any) -> None:
        pass


# Arguments of every policy that is rebuilt
_NOT_LEARNING: dict[str, Any] = {"lr_schedule": lambda _: 0.0, "optimizer_class": _NoOptimizer}
