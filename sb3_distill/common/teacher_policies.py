"""SB3's policies rebuilt from their weights: the architecture is read off the tensors' shapes."""

import copy
from collections.abc import Callable
from typing import Any

import torch as th
from gymnasium import spaces
from sb3_contrib.qrdqn.policies import QRDQNPolicy
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.dqn.policies import DQNPolicy
from torch import nn

from sb3_distill.common.actor_critic_policies import MlpPolicy as ActorCriticStudent
from sb3_distill.common.actor_critic_policies import actor_modules
from sb3_distill.common.archive import TeacherError
from sb3_distill.common.policies import StudentPolicy
from sb3_distill.common.quantization import quantize
from sb3_distill.common.torch_layers import GridCNN, StudentCNN

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
    :raises TeacherError: it is not in the list of known ones
    """
    if name is None:
        return default
    module, _, short = str(name).removeprefix("<class ").strip("'>").rpartition(".")
    # Not somebody's own class of a known name
    if short not in ACTIVATIONS or module not in ("", "nn", "th.nn", "torch.nn", "torch.nn.modules.activation"):
        raise TeacherError(f"The activation function {name!r} is not known: known are {', '.join(ACTIVATIONS)}.")
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
        raise TeacherError(
            f"The {what} agent does not have the stock architecture of its algorithm, so it cannot be rebuilt from its "
            f"weights: {' '.join(str(error).split())}. An agent of your own with custom layers can be given as a "
            "loaded SB3 model, or with allow_pickle=True where you trust its file."
        ) from error
    return policy


def _no_learning_rate(_: float) -> float:
    return 0.0


def build_dqn(
    weights: Weights, observation_space: spaces.Space, action_space: spaces.Space, kwargs: dict[str, Any]
) -> DQNPolicy:
    """DQN's policy with these weights."""
    prefix, normalize_images = "q_net.features_extractor.", kwargs.get("normalize_images", True)
    if f"{prefix}scaler.mean" in weights:
        # A student's network that learned without a teacher
        extractor = _student_extractor(weights, prefix, observation_space)
    else:
        extractor = _extractor(weights, prefix, observation_space, normalize_images)
        extractor["normalize_images"] = normalize_images
    policy = DQNPolicy(
        observation_space,
        action_space,  # type: ignore[arg-type]
        _no_learning_rate,
        net_arch=_widths(weights, "q_net.q_net.")[:-1],
        activation_fn=read_activation(kwargs.get("activation_fn"), nn.ReLU),
        **extractor,
    )
    return _load(policy, weights, "DQN")


def build_qrdqn(
    weights: Weights, observation_space: spaces.Space, action_space: spaces.Space, kwargs: dict[str, Any]
) -> QRDQNPolicy:
    """QR-DQN's policy with these weights."""
    widths = _widths(weights, "quantile_net.quantile_net.")
    n_actions = int(action_space.n)  # type: ignore[attr-defined]
    normalize_images = kwargs.get("normalize_images", True)
    policy = QRDQNPolicy(
        observation_space,
        action_space,  # type: ignore[arg-type]
        _no_learning_rate,
        n_quantiles=widths[-1] // n_actions,
        net_arch=widths[:-1],
        activation_fn=read_activation(kwargs.get("activation_fn"), nn.ReLU),
        normalize_images=normalize_images,
        **_extractor(weights, "quantile_net.features_extractor.", observation_space, normalize_images),
    )
    return _load(policy, weights, "QR-DQN")


def build_actor_critic(
    weights: Weights, observation_space: spaces.Space, action_space: spaces.Space, kwargs: dict[str, Any]
) -> ActorCriticPolicy:
    """The policy of PPO, A2C and TRPO with these weights."""
    if any(name.startswith("mlp_extractor.shared_net.") for name in weights):
        raise TeacherError(
            "This agent's actor and critic share hidden layers (shared_net), which Stable-Baselines3 has given up in "
            "version 1.8: train it again, or load it there and keep a converted copy."
        )
    weights = dict(weights)
    shared = not any(
        not th.equal(tensor, weights.get(name.replace("vf_", "pi_", 1), th.empty(0)))
        for name, tensor in weights.items()
        if name.startswith("vf_features_extractor.")
    )
    for name in [name for name in weights if name.startswith("features_extractor.")]:
        # Before version 1.7 the extractor had one name; since then it has three.
        for owner in ("pi_", "vf_"):
            weights.setdefault(owner + name, weights[name])
    normalize_images = kwargs.get("normalize_images", True)
    log_std = weights.get("log_std")
    policy = ActorCriticPolicy(
        observation_space,
        action_space,
        _no_learning_rate,
        net_arch={
            "pi": _widths(weights, "mlp_extractor.policy_net."),
            "vf": _widths(weights, "mlp_extractor.value_net."),
        },
        activation_fn=read_activation(kwargs.get("activation_fn"), nn.Tanh),
        ortho_init=False,
        # State-dependent exploration has a matrix of deviations.
        use_sde=log_std is not None and log_std.ndim == 2,
        full_std=log_std is None or log_std.ndim == 1 or log_std.shape[1] == action_space.shape[0],  # type: ignore[index]
        use_expln=bool(kwargs.get("use_expln", False)),
        squash_output=bool(kwargs.get("squash_output", False)),
        share_features_extractor=shared,
        normalize_images=normalize_images,
        **_extractor(weights, "pi_features_extractor.", observation_space, normalize_images),
    )
    return _load(policy, weights, "actor-critic")


def _student_extractor(weights: Weights, prefix: str, space: spaces.Space) -> dict[str, Any]:
    """Keyword arguments of the features extractor of a student that has these weights."""
    if f"{prefix}scaler.mean" not in weights:
        return _extractor(weights, prefix, space, True)
    channels = [weights[f"{prefix}cnn.{layer}.weight"].shape[0] for layer in (0, 2, 4)]
    linear = weights[f"{prefix}linear.0.weight"]
    return {
        "features_extractor_class": StudentCNN,
        "features_extractor_kwargs": {
            "channels": channels,
            "features_dim": linear.shape[0],
            "pool": "max" if linear.shape[1] == channels[-1] else None,
            "standardize": "frame" if weights[f"{prefix}scaler.mean"].numel() > 1 else "scalar",
        },
        "normalize_images": False,
    }


def build_actor_critic_student(
    weights: Weights, observation_space: spaces.Space, action_space: spaces.Space, kwargs: dict[str, Any]
) -> ActorCriticStudent:
    """A student of ``QPD`` with these weights, of full or of low precision."""
    policy = ActorCriticStudent(
        observation_space,
        action_space,
        _no_learning_rate,
        net_arch={
            "pi": _widths(weights, "mlp_extractor.policy_net."),
            "vf": _widths(weights, "mlp_extractor.value_net."),
        },
        activation_fn=read_activation(kwargs.get("activation_fn"), nn.Tanh),
        share_features_extractor=bool(kwargs.get("share_features_extractor", True)),
        **_student_extractor(weights, "pi_features_extractor.", observation_space),
    )
    bits = {
        name: (int(weights[f"{name}.weight_quantizer.bits"]), weights.get(f"{name}.input_quantizer.bits"))
        for name, module in policy.named_modules()
        if f"{name}.weight_quantizer.bits" in weights
    }
    if bits:
        layers = {policy.get_submodule(name): choice for name, choice in bits.items()}
        quantize(
            policy,
            actor_modules(policy),
            lambda position, n_layers, layer: layers[layer][0],
            lambda position, n_layers, layer: None if layers[layer][1] is None else int(layers[layer][1]),  # type: ignore[arg-type]
        )
    return _load(policy, weights, "student")


def build_student(
    weights: Weights, observation_space: spaces.Space, action_space: spaces.Space, kwargs: dict[str, Any]
) -> StudentPolicy:
    """A student of this library with these weights."""
    extractor = _student_extractor(weights, "q_net.features_extractor.", observation_space)
    policy = StudentPolicy(
        observation_space,
        action_space,  # type: ignore[arg-type]
        _no_learning_rate,
        net_arch=_widths(weights, "q_net.q_net.")[:-1],
        activation_fn=read_activation(kwargs.get("activation_fn"), nn.ReLU),
        **extractor,
    )
    return _load(policy, weights, "student")


BUILDERS: dict[str, Callable[[Weights, spaces.Space, spaces.Space, dict[str, Any]], Any]] = {
    "dqn": build_dqn,
    "qrdqn": build_qrdqn,
    "ppo": build_actor_critic,
    "a2c": build_actor_critic,
    "trpo": build_actor_critic,
    "pd": build_student,
    "qpd": build_actor_critic_student,
}


def freeze(policy: BasePolicy) -> Any:
    """
    :param policy: a policy that nobody else uses
    :return: the same policy: it acts and never learns, in the layout in which CPU convolutions are fastest
    """
    policy.set_training_mode(False)
    policy.requires_grad_(False)
    return policy.to(memory_format=th.channels_last)  # type: ignore[call-overload]


def copy_policy(policy: BasePolicy) -> Any:
    """
    :param policy: a model's policy
    :return: a copy of it
    """
    if getattr(policy, "use_sde", False):
        # The exploration matrices are sampled with a gradient, which deepcopy refuses; drawn anew without it they pass.
        with th.no_grad():
            policy.reset_noise()  # type: ignore[operator]
    # The last distribution hangs on the computation that made it, which deepcopy refuses too.
    action_dist = getattr(policy, "action_dist", None)
    last = vars(action_dist).pop("distribution", None) if action_dist is not None else None
    copied = copy.deepcopy(policy)
    if last is not None:
        action_dist.distribution = last  # type: ignore[union-attr]
    return copied
