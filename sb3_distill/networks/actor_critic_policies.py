"""Actor-critic students: SB3's own policy, in the sizes of the papers."""

from typing import Any, ClassVar

import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import (
    CategoricalDistribution,
    DiagGaussianDistribution,
    StateDependentNoiseDistribution,
)
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import nn

from sb3_distill.networks import policies as dqn_students
from sb3_distill.networks.extractors import GridCNN, StudentCNN
from sb3_distill.networks.policies import StudentMixin, fused_where_possible
from sb3_distill.quantization.packing import count_parameters


class MlpPolicy(StudentMixin, ActorCriticPolicy):
    """
    An actor and a critic, with shared or separate trunks (``share_features_extractor``); the arguments are those of
    SB3's ``ActorCriticPolicy``.
    """

    extractor_class: ClassVar[type[BaseFeaturesExtractor]] = FlattenExtractor
    extractor_kwargs: ClassVar[dict[str, Any]] = {}

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
        optimizer_class: type[th.optim.Optimizer] = th.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        extractor = features_extractor_class or self.extractor_class
        extractor_kwargs = {**self.extractor_kwargs, **(features_extractor_kwargs or {})}
        if issubclass(extractor, StudentCNN):
            # The extractor scales the frames itself, in one pass.
            extractor_kwargs = {"normalize_images": normalize_images, **extractor_kwargs}
            normalize_images = False
        if net_arch is None and issubclass(extractor, (StudentCNN, GridCNN)):
            # The hidden layer is the extractor's: without this SB3 would add heads of [64, 64].
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
            optimizer_class=optimizer_class,
            optimizer_kwargs=fused_where_possible(optimizer_class, optimizer_kwargs or {}),
            **kwargs,
        )

    def outputs(self, obs: PyTorchObs) -> th.Tensor:
        """
        :param obs: batch of observations, as the environment gives them
        :return: the distribution's parameters and the value, ``(batch, n_outputs)``: log-probabilities of discrete
            actions, or means and logarithms of standard deviations of continuous ones
        """
        features = self.extract_features(obs)
        if self.share_features_extractor:
            latent_pi, latent_vf = self.mlp_extractor(features)
        else:
            latent_pi = self.mlp_extractor.forward_actor(features[0])
            latent_vf = self.mlp_extractor.forward_critic(features[1])
        distribution = self._get_action_dist_from_latent(latent_pi)
        return th.cat([distribution_parameters(distribution), self.value_net(latent_vf)], dim=1)

    @property
    def n_parameters(self) -> int:
        """Number of parameters of the actor."""
        return count_parameters(actor_modules(self))


def actor_modules(policy: ActorCriticPolicy) -> list[nn.Module]:
    """
    :param policy: an actor-critic policy
    :return: what acts, in the order in which an observation passes it; the critic is not needed on a device
    """
    return [policy.pi_features_extractor, policy.mlp_extractor.policy_net, policy.action_net]


def is_known_distribution(distribution: Any) -> bool:
    """
    :param distribution: SB3's distribution over actions
    :return: whether it is categorical, or a diagonal Gaussian that is not squashed; that of state-dependent exploration
        is one for every single observation
    """
    if isinstance(distribution, StateDependentNoiseDistribution):
        return distribution.bijector is None
    return type(distribution) in (CategoricalDistribution, DiagGaussianDistribution)


def distribution_parameters(distribution: Any) -> th.Tensor:
    """
    :param distribution: a distribution over actions for which ``is_known_distribution`` holds
    :return: log-probabilities ``(batch, n_actions)``, or means and logarithms of standard deviations
        ``(batch, 2 n_dimensions)``
    """
    if isinstance(distribution, CategoricalDistribution):
        return distribution.distribution.logits
    normal = distribution.distribution
    return th.cat([normal.mean, normal.stddev.log()], dim=1)


class CnnPolicy(MlpPolicy):
    """Student for stacked frames, with the Nature DQN network as its trunk."""

    extractor_class: ClassVar[type[BaseFeaturesExtractor]] = StudentCNN
    extractor_kwargs: ClassVar[dict[str, Any]] = dqn_students.CnnPolicy.cnn_kwargs


class Net1Policy(CnnPolicy):
    """Trunk of Net1 (Rusu et al. 2015, table A1)."""

    extractor_kwargs: ClassVar[dict[str, Any]] = dqn_students.Net1Policy.cnn_kwargs


class Net2Policy(CnnPolicy):
    """Trunk of Net2 (Rusu et al. 2015, table A1)."""

    extractor_kwargs: ClassVar[dict[str, Any]] = dqn_students.Net2Policy.cnn_kwargs


class Net3Policy(CnnPolicy):
    """Trunk of Net3 (Rusu et al. 2015, table A1)."""

    extractor_kwargs: ClassVar[dict[str, Any]] = dqn_students.Net3Policy.cnn_kwargs


class Net4Policy(CnnPolicy):
    """Trunk of Net4 (Sun & Fazli 2019, section 3)."""

    extractor_kwargs: ClassVar[dict[str, Any]] = dqn_students.Net4Policy.cnn_kwargs


class Net5Policy(CnnPolicy):
    """Trunk of Net5 (Sun & Fazli 2019, section 3)."""

    extractor_kwargs: ClassVar[dict[str, Any]] = dqn_students.Net5Policy.cnn_kwargs


class MaxPoolCnnPolicy(CnnPolicy):
    """Trunk with halved feature maps and a global max-pool (Actor-Mimic compression, table 2)."""

    extractor_kwargs: ClassVar[dict[str, Any]] = dqn_students.MaxPoolCnnPolicy.cnn_kwargs


class MultiInputPolicy(MlpPolicy):
    """Student for Dict observations, with SB3's ``CombinedExtractor``."""

    extractor_class: ClassVar[type[BaseFeaturesExtractor]] = CombinedExtractor


class GridCnnPolicy(MlpPolicy):
    """Student for small grids such as MinAtar's (see ``GridCNN``)."""

    extractor_class: ClassVar[type[BaseFeaturesExtractor]] = GridCNN


ACTOR_CRITIC_POLICIES: dict[str, type[MlpPolicy]] = {
    "MlpPolicy": MlpPolicy,
    "CnnPolicy": CnnPolicy,
    "MultiInputPolicy": MultiInputPolicy,
    "Net1Policy": Net1Policy,
    "Net2Policy": Net2Policy,
    "Net3Policy": Net3Policy,
    "Net4Policy": Net4Policy,
    "Net5Policy": Net5Policy,
    "MaxPoolCnnPolicy": MaxPoolCnnPolicy,
    "GridCnnPolicy": GridCnnPolicy,
}
