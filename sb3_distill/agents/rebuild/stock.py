"""Students as stock models of Stable-Baselines3, which load where this package is not installed."""

import warnings
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, NatureCNN
from torch import nn

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.files import AgentError
from sb3_distill.algorithms import STUDENTS
from sb3_distill.networks.extractors import StudentCNN
from sb3_distill.networks.layers import GlobalMaxPool
from sb3_distill.quantization.layers import describe_transition, quantized_layers

# The steps that the memory of a stock DQN holds: SB3's default of a million is 56 GB of frames.
_BUFFER_SIZE = 100_000
_NATURE_CHANNELS = (32, 64, 64)


@th.no_grad()
def stock_model(agent: Teacher) -> BaseAlgorithm:
    """
    A student as a stock DQN (students of ``pd``) or PPO (students of ``qpd`` and ``ppd``), with SB3's own default
    hyperparameters (but a memory of 100,000 steps).
    It acts as the student does, with two exceptions: quantized weights are the floats that they stand for, but the
    inputs of their layers are not rounded any more; and a squashed student draws its actions by gSDE, which SB3 needs
    for squashing.

    :param agent: a loaded student
    :return: the stock model, without an environment
    :raises AgentError: it is no student, its precision is not final, or stock policies cannot compute what it does
    """
    if agent.algo not in STUDENTS:
        raise AgentError(
            f"{agent.source} ({agent.algo}) is no student of pd, qpd or ppd, which alone are written as stock models; "
            "agents of Stable-Baselines3 are such models already."
        )
    policy = agent.policy
    transition = describe_transition(policy)
    if transition:
        raise AgentError(f"{agent.source} is still in the transition ({transition}): finish its training.")
    if agent.normalization is not None:
        warnings.warn(
            f"{agent.source} was trained behind VecNormalize, which is no part of a stock model: put its statistics "
            "(vecnormalize.pkl of its run) around the environment with VecNormalize.load."
        )
    if quantized_layers(policy):
        warnings.warn(
            f"{agent.source} is quantized, and a stock model does not round the inputs of its layers: it chooses other "
            "actions at some observations. sb3-distill export --format sb3 says at how many."
        )
    is_ppo = agent.algo != "pd"
    kwargs: dict[str, Any] = {"net_arch": policy.net_arch, "activation_fn": policy.activation_fn}
    if is_ppo:
        kwargs["share_features_extractor"] = policy.share_features_extractor
    name, extractor_kwargs = _extractor_of(agent)
    kwargs |= extractor_kwargs
    own: dict[str, Any] = {} if is_ppo else {"buffer_size": _BUFFER_SIZE}
    if is_ppo and policy.squash_output:
        own["use_sde"] = kwargs["squash_output"] = True
    model_class: Any = PPO if is_ppo else DQN
    # Without an environment, as SB3's load makes a model
    model = model_class(name, None, policy_kwargs=kwargs, device="cpu", _init_setup_model=False, **own)
    model.observation_space, model.action_space, model.n_envs = policy.observation_space, policy.action_space, 1
    model._setup_model()
    model.policy.load_state_dict(_state_of(policy, model.policy))
    return model


def _extractor_of(agent: Teacher) -> tuple[str, dict[str, Any]]:
    """The name of the stock policy, and its arguments for the features extractor."""
    policy = agent.policy
    extractor = agent.acting_modules[0]
    if type(extractor) in (FlattenExtractor, NatureCNN, CombinedExtractor):
        name = "MultiInputPolicy" if isinstance(policy.observation_space, spaces.Dict) else "MlpPolicy"
        return name, {
            "features_extractor_class": type(extractor),
            "features_extractor_kwargs": dict(policy.features_extractor_kwargs),
            "normalize_images": policy.normalize_images,
        }
    problem = f"its features come from {type(extractor).__name__}"
    if isinstance(extractor, StudentCNN):
        widths = [layer.out_channels for layer in extractor.cnn if isinstance(layer, nn.Conv2d)]
        if any(isinstance(layer, GlobalMaxPool) for layer in extractor.cnn):
            problem = "it has a global max-pool"
        elif extractor.scaler.mean.numel() > 1:
            problem = "it subtracts a mean frame (standardize='frame')"
        elif any(own > stock for own, stock in zip(widths, _NATURE_CHANNELS, strict=True)):
            problem = f"its convolutions have {widths} feature maps, more than {list(_NATURE_CHANNELS)}"
        else:
            return "CnnPolicy", {"features_extractor_kwargs": {"features_dim": extractor.features_dim}}
    raise AgentError(
        f"{agent.source} cannot be a stock model, because {problem}, which SB3's own policies do not have: distill a "
        "student with MlpPolicy for vectors, or with Net1Policy to Net5Policy and standardize='scalar' for frames."
    )


def _state_of(policy: nn.Module, stock: nn.Module) -> dict[str, th.Tensor]:
    """The state dict of a stock policy that computes what a student does."""
    own = dict(policy.state_dict())
    modules = dict(policy.named_modules(remove_duplicate=False))
    quantized = set(quantized_layers(policy))
    for name, module in modules.items():
        if module in quantized:
            assert isinstance(module, nn.Module)
            own[f"{name}.weight"] = module.quantized_weight()  # type: ignore[operator]
    for name, module in modules.items():
        if isinstance(module, StudentCNN):
            own |= {f"{name}.{key}": tensor for key, tensor in _as_nature_cnn(name, own, module).items()}
    state = {}
    for name, tensor in stock.state_dict().items():
        # The target network begins as the network itself.
        found = own[name.replace("q_net_target.", "q_net.", 1)]
        if name == "log_std" and found.ndim < tensor.ndim:
            # gSDE: the deviation where the features of the last layer are 1
            found = (found - 0.5 * np.log(len(tensor))).expand_as(tensor)
        state[name] = found
    return state


def _as_nature_cnn(name: str, own: dict[str, th.Tensor], extractor: StudentCNN) -> dict[str, th.Tensor]:
    """The weights of a ``NatureCNN``: with the frames' mean and scale in the first layer, and zeros for feature maps
    that the student does not have."""
    convolutions = [str(index) for index, layer in enumerate(extractor.cnn) if isinstance(layer, nn.Conv2d)]
    found, n_inputs = {}, 0
    for position, (index, n_outputs) in enumerate(zip(convolutions, _NATURE_CHANNELS, strict=True)):
        weight, bias = own[f"{name}.cnn.{index}.weight"], own[f"{name}.cnn.{index}.bias"]
        if position == 0:
            # (pixels - mean) / scale of the student, pixels / 255 of SB3
            bias = bias - weight.sum(dim=(1, 2, 3)) * extractor.scaler.mean.reshape(()) / extractor.scaler.scale
            weight = weight * 255.0 / extractor.scaler.scale
            n_inputs = weight.shape[1]
        padded = weight.new_zeros(n_outputs, n_inputs, *weight.shape[2:])
        padded[: len(weight), : weight.shape[1]] = weight
        found[f"cnn.{index}.weight"] = padded
        found[f"cnn.{index}.bias"] = th.cat([bias, bias.new_zeros(n_outputs - len(bias))])
        n_inputs = n_outputs
    weight = own[f"{name}.linear.0.weight"]
    n_maps = len(own[f"{name}.cnn.{convolutions[-1]}.bias"])
    n_missing = weight.shape[1] // n_maps * (_NATURE_CHANNELS[-1] - n_maps)
    found["linear.0.weight"] = th.cat([weight, weight.new_zeros(len(weight), n_missing)], dim=1)
    return found
