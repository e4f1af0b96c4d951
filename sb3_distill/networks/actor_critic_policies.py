"""Actor-critic students: SB3's ActorCriticPolicy with the network sizes of the papers."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch as th
from gymnasium import spaces
from sb3_contrib.common.maskable.distributions import MaskableCategoricalDistribution
from stable_baselines3.common.distributions import (
    CategoricalDistribution,
    DiagGaussianDistribution,
    SquashedDiagGaussianDistribution,
    StateDependentNoiseDistribution,
)
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import nn

from sb3_distill.common.answers import Answers, Gaussian
from sb3_distill.common.finite import has_bounds
from sb3_distill.networks.extractors import CNN_SIZES, ExtractorMixin, GridCNN, StudentCNN
from sb3_distill.networks.layers import count_parameters
from sb3_distill.networks.optimizers import fused_where_possible, optimizer_of
from sb3_distill.networks.policies import StudentMixin

# MaskablePPO's without its masks is SB3's
_CATEGORICAL = (CategoricalDistribution, MaskableCategoricalDistribution)


class ActorCriticMlpPolicy(StudentMixin, ExtractorMixin, ActorCriticPolicy):
    """
    An actor and a critic, with shared or separate features extractors (``share_features_extractor``). The arguments are
    those of SB3's ``ActorCriticPolicy``, and one more. ``squash_output`` does not need gSDE here.

    :param quantize: replaces layers of the new policy by quantized ones. ``save`` notes it for ``load``; elsewhere bits
        are arguments of ``QPD``
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        activation_fn: type[nn.Module] = nn.Tanh,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        optimizer_class: type[th.optim.Optimizer] | str = th.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        squash_output: bool = False,
        quantize: Callable[[nn.Module], None] | None = None,
        **kwargs: Any,
    ) -> None:
        extractor, extractor_kwargs, normalize_images = self.choose_extractor(
            features_extractor_class, features_extractor_kwargs, normalize_images
        )
        if net_arch is None and issubclass(extractor, (StudentCNN, GridCNN)):
            # The features extractor has the hidden layer already. With None, SB3 would add layers of [64, 64].
            net_arch = []
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch=net_arch,
            activation_fn=activation_fn,
            features_extractor_class=extractor,
            features_extractor_kwargs=extractor_kwargs,
            normalize_images=normalize_images,
            optimizer_class=optimizer_of(optimizer_class),
            optimizer_kwargs=optimizer_kwargs,
            # SB3 has it with gSDE alone.
            squash_output=squash_output and bool(kwargs.get("use_sde")),
            **kwargs,
        )
        if squash_output and not self.squash_output:
            self._squash_output = True
            self.action_dist = SquashedDiagGaussianDistribution(get_action_dim(action_space))
        self.quantize = quantize
        if quantize is not None:
            quantize(self)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            **super()._get_constructor_parameters(),
            "share_features_extractor": self.share_features_extractor,
            "squash_output": self.squash_output,
            "quantize": self.quantize,
        }

    def _build(self, lr_schedule: Schedule) -> None:
        # Here, after SB3 has chosen its own defaults (eps=1e-5 of Adam), which arguments of ours would replace
        self.optimizer_kwargs = fused_where_possible(self.optimizer_class, self.optimizer_kwargs)
        super()._build(lr_schedule)

    def answer(self, obs: PyTorchObs) -> Answers:
        """
        :param obs: batch of observations, as the environment returns them
        :return: the distribution over actions and the critic's values
        """
        return actor_critic_answers(self, obs)

    def latest_answers(self) -> Answers:
        """
        :return: the distribution over actions that the last call of ``evaluate_actions`` made, without another pass
            through the network
        """
        distribution: Any = self.action_dist.distribution
        if isinstance(self.action_dist, CategoricalDistribution):
            return Answers(log_probs=distribution.logits)
        return Answers(gaussian=Gaussian(distribution.mean, distribution.stddev, self.squash_output))

    @property
    def n_parameters(self) -> int:
        """Number of parameters of the actor."""
        return count_parameters(actor_modules(self))


def actor_modules(policy: ActorCriticPolicy) -> list[nn.Module]:
    """
    :param policy: an actor-critic policy
    :return: the modules that compute the action, in order; without the critic, which is not needed to act
    """
    return [policy.pi_features_extractor, policy.mlp_extractor.policy_net, policy.action_net]


def is_known_distribution(distribution: Any) -> bool:
    """
    :param distribution: SB3's distribution over actions
    :return: whether it is categorical, or a diagonal Gaussian, squashed or not (with state-dependent exploration, the
        distribution for a given observation is a diagonal Gaussian, too)
    """
    return isinstance(distribution, (*_CATEGORICAL, DiagGaussianDistribution, StateDependentNoiseDistribution))


def check_gaussian_kwargs(policy_kwargs: Mapping[str, Any], action_space: spaces.Space) -> None:
    """
    :param policy_kwargs: arguments of an actor-critic student's policy
    :param action_space: its actions
    :raises ValueError: it is to explore with gSDE, or to squash actions that are not continuous or have no bounds
    """
    if policy_kwargs.get("use_sde"):
        raise ValueError(
            "policy_kwargs: use_sde=True is not supported, students have a Gaussian whose deviation depends on no "
            "observation: leave it out."
        )
    is_bounded = isinstance(action_space, spaces.Box) and has_bounds(action_space).all()
    if policy_kwargs.get("squash_output") and not is_bounded:
        raise ValueError(
            f"policy_kwargs: squash_output=True needs continuous actions with bounds, not {action_space}: leave it out."
        )


def actor_critic_answers(policy: ActorCriticPolicy, obs: PyTorchObs, with_values: bool = True) -> Answers:
    """
    Evaluate the actor and, if asked for, the critic, with a single pass through a shared features extractor.

    :param policy: an actor-critic policy, for whose distribution ``is_known_distribution`` holds
    :param obs: batch of observations in the format of the policy's input
    :param with_values: whether to evaluate the critic, if the policy has one
    :return: the distribution over actions, and the values
    """
    features_pi: Any
    features_vf: Any = None
    if policy.share_features_extractor:
        features_pi = features_vf = policy.extract_features(obs)
    elif with_values:
        features_pi, features_vf = policy.extract_features(obs)
    else:
        features_pi = BasePolicy.extract_features(policy, obs, policy.pi_features_extractor)
    latent = policy.mlp_extractor.forward_actor(features_pi)
    values = None
    if with_values and getattr(policy, "value_net", None) is not None:
        values = policy.value_net(policy.mlp_extractor.forward_critic(features_vf)).squeeze(1)
    # As SB3's distributions, which check their numbers and so would wait for a GPU
    if isinstance(policy.action_dist, _CATEGORICAL):
        logits = policy.action_net(latent)
        return Answers(log_probs=logits - logits.logsumexp(dim=-1, keepdim=True), values=values)
    if isinstance(policy.action_dist, DiagGaussianDistribution):
        mean = policy.action_net(latent)
        deviation = th.ones_like(mean) * policy.log_std.exp()
        return Answers(gaussian=Gaussian(mean, deviation, policy.squash_output), values=values)
    distribution: Any = policy._get_action_dist_from_latent(latent)
    normal = distribution.distribution
    return Answers(gaussian=Gaussian(normal.mean, normal.stddev, policy.squash_output), values=values)


class ActorCriticCnnPolicy(ActorCriticMlpPolicy):
    """Student for stacked frames, with the convolutions and the hidden layer of the DQN network."""

    extractor_class: ClassVar[type[BaseFeaturesExtractor]] = StudentCNN
    extractor_kwargs: ClassVar[dict[str, Any]] = CNN_SIZES["dqn"]


class ActorCriticNet1Policy(ActorCriticCnnPolicy):
    """Convolutions and hidden layer of Net1 (Rusu et al. 2015, table A1)."""

    extractor_kwargs: ClassVar[dict[str, Any]] = CNN_SIZES["net1"]


class ActorCriticNet2Policy(ActorCriticCnnPolicy):
    """Convolutions and hidden layer of Net2 (Rusu et al. 2015, table A1)."""

    extractor_kwargs: ClassVar[dict[str, Any]] = CNN_SIZES["net2"]


class ActorCriticNet3Policy(ActorCriticCnnPolicy):
    """Convolutions and hidden layer of Net3 (Rusu et al. 2015, table A1)."""

    extractor_kwargs: ClassVar[dict[str, Any]] = CNN_SIZES["net3"]


class ActorCriticNet4Policy(ActorCriticCnnPolicy):
    """Convolutions and hidden layer of Net4 (Sun & Fazli 2019, section 3)."""

    extractor_kwargs: ClassVar[dict[str, Any]] = CNN_SIZES["net4"]


class ActorCriticNet5Policy(ActorCriticCnnPolicy):
    """Convolutions and hidden layer of Net5 (Sun & Fazli 2019, section 3)."""

    extractor_kwargs: ClassVar[dict[str, Any]] = CNN_SIZES["net5"]


class ActorCriticMaxPoolCnnPolicy(ActorCriticCnnPolicy):
    """Half the feature maps of the DQN network and a global max-pool (Actor-Mimic compression, table 2)."""

    extractor_kwargs: ClassVar[dict[str, Any]] = CNN_SIZES["max_pool"]


class ActorCriticMultiInputPolicy(ActorCriticMlpPolicy):
    """Student for Dict observations, with SB3's ``CombinedExtractor``."""

    extractor_class: ClassVar[type[BaseFeaturesExtractor]] = CombinedExtractor


class ActorCriticGridCnnPolicy(ActorCriticMlpPolicy):
    """Student for small grids such as MinAtar's (see ``GridCNN``)."""

    extractor_class: ClassVar[type[BaseFeaturesExtractor]] = GridCNN


ACTOR_CRITIC_POLICIES: dict[str, type[ActorCriticMlpPolicy]] = {
    "MlpPolicy": ActorCriticMlpPolicy,
    "CnnPolicy": ActorCriticCnnPolicy,
    "MultiInputPolicy": ActorCriticMultiInputPolicy,
    "Net1Policy": ActorCriticNet1Policy,
    "Net2Policy": ActorCriticNet2Policy,
    "Net3Policy": ActorCriticNet3Policy,
    "Net4Policy": ActorCriticNet4Policy,
    "Net5Policy": ActorCriticNet5Policy,
    "MaxPoolCnnPolicy": ActorCriticMaxPoolCnnPolicy,
    "GridCnnPolicy": ActorCriticGridCnnPolicy,
}
