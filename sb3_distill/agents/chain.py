"""The layers that turn an observation into an action, as one sequence."""

from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import FlattenExtractor, NatureCNN
from torch import nn

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.files import AgentError
from sb3_distill.agents.kinds.answering import AnsweringTeacher
from sb3_distill.agents.kinds.onnx import OnnxTeacher
from sb3_distill.agents.kinds.own import OwnTeacher
from sb3_distill.networks.extractors import GridCNN, StudentCNN
from sb3_distill.networks.layers import ChannelsFirst, Scale


def chain_of(agent: Teacher) -> list[nn.Module]:
    """
    :param agent: a loaded agent
    :return: all layers, in order. Applied one after another to a batch of observations (as floats), they give one
        number per action (Q-values or logits), or the means of a Gaussian.
    :raises AgentError: the features extractor is of an unknown class, or its layers do not form a sequence
    """
    if isinstance(agent, AnsweringTeacher):
        raise AgentError(
            f"{agent.source} is no chain of layers ({agent.kind}): this is possible for SB3's agents without memory."
        )
    extractor, *rest = agent.acting_modules
    policy = agent.policy
    # SB3's preprocess_obs divides images by 255 before any features extractor. Students on frames have
    # normalize_images=False: their FrameScaler does the scaling.
    layers: list[nn.Module] = (
        [Scale(255.0)] if policy.normalize_images and is_image_space(policy.observation_space) else []
    )
    if isinstance(extractor, StudentCNN):
        layers += [extractor.scaler, *extractor.cnn, *extractor.linear]
    elif isinstance(extractor, NatureCNN):
        layers += [*extractor.cnn, *extractor.linear]
    elif isinstance(extractor, GridCNN):
        layers += [ChannelsFirst(), *extractor.cnn, *extractor.linear]
    elif isinstance(extractor, FlattenExtractor) and isinstance(agent.observation_space, spaces.Box):
        layers += [nn.Flatten()]
    else:
        raise AgentError(
            f"{agent.source} is no chain of layers: its features extractor is {type(extractor).__name__} on "
            f"{agent.observation_space}. Only features extractors for vectors (FlattenExtractor; also of a Dict "
            "of vectors in floating point), grids (GridCNN) and stacked frames (NatureCNN, StudentCNN) are "
            "supported: use an agent with one of them."
        )
    for module in rest:
        layers += list(module) if isinstance(module, nn.Sequential) else [module]
    return layers


def count_macs(agent: Teacher) -> int | None:
    """
    :param agent: a loaded agent
    :return: number of multiplications that the agent needs to compute the action for one observation; a critic is not
        counted. None where it is not known: of an object of a user's own, of layers that are not counted, and of some
        ONNX files
    """
    if isinstance(agent, OnnxTeacher):
        return agent.n_macs
    counted = nn.Conv2d, nn.Linear, nn.LSTM
    layers = [layer for module in agent.acting_modules for layer in module.modules()]
    matrices = (layer for layer in layers if any(weight.ndim > 1 for weight in layer.parameters(recurse=False)))
    if isinstance(agent, OwnTeacher) or not all(isinstance(layer, counted) for layer in matrices):
        return None
    total = 0

    def count(layer: Any, inputs: Any, output: th.Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.LSTM):
            total += sum(weight.numel() for name, weight in layer.named_parameters() if name.startswith("weight"))
        else:
            total += layer.weight.numel() * (output.shape[2] * output.shape[3] if output.ndim == 4 else 1)

    handles = [layer.register_forward_hook(count) for layer in layers if isinstance(layer, counted)]
    space = agent.observation_space
    # What it sees changes nothing.
    agent.predict(
        {key: _zeros(part) for key, part in space.items()} if isinstance(space, spaces.Dict) else _zeros(space)
    )
    for handle in handles:
        handle.remove()
    return total


def _zeros(space: spaces.Space) -> np.ndarray:
    assert space.shape is not None
    return np.zeros(space.shape, space.dtype)
