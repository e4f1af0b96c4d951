"""A trained agent that answers and never learns."""

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.utils import get_device, obs_as_tensor

from sb3_distill.agents.files import AgentError, EvaluationScore
from sb3_distill.agents.kinds.acting import ActingByAnswers, n_observations
from sb3_distill.agents.normalization import Normalization
from sb3_distill.common.answers import Answers
from sb3_distill.common.finite import find_not_finite
from sb3_distill.envs.recipe import EnvRecipe
from sb3_distill.networks.actor_critic_policies import actor_critic_answers, actor_modules, is_known_distribution
from sb3_distill.networks.frozen import explores_by_state, freeze
from sb3_distill.networks.layers import MeanOverQuantiles
from sb3_distill.quantization.packing import count_parameters, packed_bytes

SelfTeacher = TypeVar("SelfTeacher", bound="Teacher")


@dataclass(frozen=True)
class AgentFacts:
    """
    What is known of an agent beside its policy.

    :param algo: key of the algorithm in the Zoo, e.g. "dqn"
    :param source: where the agent was found
    :param sha256: hash of its zip, or of its weights if there is no zip; ``Teacher.sha256`` counts the statistics, too
    :param env_id: the environment it was trained on, if known
    :param normalization: VecNormalize's statistics, if it was trained with them
    :param zip_bytes: size of its zip, None where there is no zip
    :param recorded_score: the score that its run folder records: what its results.yml says, else its evaluations
    :param taught_by: for a student, the source of its teacher; None if that was a model in memory
    :param teacher_sha256: for a student, the hash of its teacher; None in files of earlier versions
    :param teacher_kwargs: for a student, what was said of its teacher beside the file (see ``load_teacher``)
    :param recipe: how the environments were made that it was trained on; None where no file says it
    :param is_rebuilt: whether its policy was rebuilt from the weights in its file; otherwise SB3 made it
    :param statistics_note: what is to be said beside its scores, where statistics and weights may be of two moments
    :param student_keys: for a student, what it sees of Dict observations, see ``ObservationView``
    :param teacher_keys: for a student, what its teacher sees of them
    :param flat_keys: the parts of Dict observations that it sees in a row, see ``FlatView``
    :param found: one line on its files: those that were read, and those that are not there; None for a model in memory
    """

    algo: str
    source: str
    sha256: str
    env_id: str | None = None
    normalization: Normalization | None = None
    zip_bytes: int | None = None
    recorded_score: EvaluationScore | dict[str, Any] | None = None
    taught_by: str | None = None
    teacher_sha256: str | None = None
    teacher_kwargs: Any = None
    recipe: EnvRecipe | None = None
    is_rebuilt: bool = False
    statistics_note: str | None = None
    student_keys: Any = None
    teacher_keys: Any = None
    flat_keys: tuple[str, ...] | None = None
    found: str | None = None


class Teacher(ActingByAnswers):
    """
    A trained agent that answers and never learns. Observations are raw ones, as the environment gives them: an agent
    that was trained behind VecNormalize applies its own statistics.

    :param policy: the SB3 policy, which is frozen
    :param facts: everything else that is known of the agent
    :raises AgentError: the statistics of VecNormalize do not fit the observations
    """

    # In words; whether it draws its actions from a distribution; and whether its state is a memory of what it saw
    kind: ClassVar[str]
    has_distribution: bool = False
    has_memory: bool = False
    # Whether it was trained with masks of the actions that are allowed: it acts within them
    needs_masks: bool = False

    def __init__(self, policy: Any, facts: AgentFacts) -> None:
        misfit = None if facts.normalization is None else facts.normalization.find_misfit(policy.observation_space)
        if misfit is not None:
            raise AgentError(
                f"The VecNormalize statistics of {facts.source} are {misfit}: they belong to another agent, or frames "
                "were stacked after normalisation, which is not supported."
            )
        self.policy = freeze(policy)
        self.facts = facts
        self._set_normalization_tensors()

    @property
    def algo(self) -> str:
        """Key of the algorithm in the Zoo."""
        return self.facts.algo

    @property
    def source(self) -> str:
        """Where it was loaded from."""
        return self.facts.source

    @property
    def saved_source(self) -> str | None:
        """The source from which ``load_teacher`` can load it again; None for a model in memory."""
        return None if self.facts.zip_bytes is None else self.facts.source

    @property
    def found(self) -> str | None:
        """See ``AgentFacts.found``."""
        return self.facts.found

    @property
    def sha256(self) -> str:
        """Hash of its zip, or of its weights if there is no zip, and of VecNormalize's statistics if it has any."""
        if self.normalization is None:
            return self.facts.sha256
        return hashlib.sha256(f"{self.facts.sha256} {self.normalization.sha256}".encode()).hexdigest()

    def is_agent(self, sha256: str | None) -> bool:
        """
        :param sha256: the hash by which a file names an agent; None where it names none
        :return: whether that can be this agent
        """
        # Earlier versions named agents by the hash of their zip alone.
        return sha256 in (None, self.sha256, self.facts.sha256)

    @property
    def env_id(self) -> str | None:
        """The environment on which it was trained, if known."""
        return self.facts.env_id

    @property
    def env_kwargs(self) -> dict[str, Any] | None:
        """Arguments of the environment on which it was trained; None if they are not known."""
        return None if self.facts.recipe is None else dict(self.facts.recipe.env_kwargs)

    @property
    def normalization(self) -> Normalization | None:
        """The statistics of VecNormalize, if it was trained with them."""
        return self.facts.normalization

    @property
    @abstractmethod
    def network(self) -> th.nn.Module:
        """The network that computes the answers: the Q-network, or actor and critic."""

    @property
    @abstractmethod
    def acting_modules(self) -> list[th.nn.Module]:
        """The parts of its policy that act, in the order in which an observation passes them."""

    @property
    def has_critic(self) -> bool:
        """Whether it answers with the values of a critic, too. A zip may hold the actor alone."""
        return False

    @property
    def observation_space(self) -> spaces.Space:
        """Space of the raw observations."""
        space = self.policy.observation_space
        return space if self.normalization is None else self.normalization.raw_space(space)

    @property
    def action_space(self) -> spaces.Space:
        """The agent's actions."""
        return self.policy.action_space

    @property
    def n_actions(self) -> int | None:
        """Number of discrete actions, None for other action spaces."""
        return int(self.action_space.n) if isinstance(self.action_space, spaces.Discrete) else None

    @property
    def frame_stack(self) -> int | None:
        """Number of stacked frames: as its configuration says, else the channels of an image; None for vectors."""
        if self.facts.recipe is not None and self.facts.recipe.frame_stack is not None:
            return self.facts.recipe.frame_stack
        shape = self.observation_space.shape
        return shape[0] if shape is not None and is_image_space(self.observation_space, check_channels=False) else None

    @property
    def n_parameters(self) -> int:
        """Number of parameters of the parts that act: no target networks, no critic."""
        return count_parameters(self.acting_modules)

    @property
    def n_bytes(self) -> int:
        """Size in bytes of what a device must hold to act: quantized layers packed; all others, and the mean and the
        scale of VecNormalize, in float32."""
        return packed_bytes(self.acting_modules, self.normalization.parts.values() if self.normalization else ())

    @property
    def device(self) -> th.device:
        """Device of the networks."""
        return self.policy.device

    def to(self: SelfTeacher, device: th.device | str) -> SelfTeacher:
        """
        Move the networks.

        :param device: cpu, cuda, auto
        :return: the teacher itself
        """
        self.policy.to(get_device(device))
        if explores_by_state(self.policy):
            # As SB3's load: exploration matrices are no parameters, and were drawn before the weights were there.
            self.policy.reset_noise()
        self._set_normalization_tensors()
        return self

    def _set_normalization_tensors(self) -> None:
        if self.normalization is not None:
            self._statistics = {
                key: (
                    th.tensor(mean, device=self.device),
                    th.tensor(np.sqrt(var + self.normalization.epsilon), device=self.device),
                )
                for key, (mean, var) in self.normalization.parts.items()
            }

    def normalize(self, obs: PyTorchObs) -> PyTorchObs:
        """
        Apply the agent's own VecNormalize statistics, in float64 as VecNormalize does.

        :param obs: batch of raw observations
        :return: the input of the policy
        """
        if self.normalization is None:
            return obs
        clip = self.normalization.clip_obs

        def apply(key: str | None, part: th.Tensor) -> th.Tensor:
            mean, scale = self._statistics[key]
            return ((part.double() - mean) / scale).clamp(-clip, clip).float()

        if isinstance(obs, dict):
            return {key: apply(key, part) if key in self._statistics else part for key, part in obs.items()}
        return apply(None, obs)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: Any = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = True,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, Any]:
        """
        Get the agent's action, as every SB3 model does: one for a single observation, or one for each of a batch.

        :param observation: a single raw observation, or a batch of them
        :param state: the state that the last call returned; None for an agent without memory
        :param episode_start: where an episode begins
        :param deterministic: False samples from the distribution of an actor-critic agent, with torch's generator (and,
            with state-dependent exploration, a new noise matrix for every observation); an agent without a
            distribution is greedy always
        :param action_masks: which discrete actions are allowed ``(batch, n_actions)``; None: all of them
        :return: the actions and the next state
        :raises ValueError: an observation holds NaN, and the policy cannot answer to it; or the masks are not what they
            should be, see ``read_masks``
        """
        if action_masks is not None:
            return self._act_by_answers(observation, state, episode_start, deterministic, action_masks)
        if self.normalization is not None:
            raw = observation if isinstance(observation, dict) else np.asarray(observation)
            obs = self.normalize(obs_as_tensor(raw, self.device))
            if isinstance(obs, dict):
                observation = {key: part.cpu().numpy() for key, part in obs.items()}
            else:
                observation = obs.cpu().numpy()
        if not deterministic and explores_by_state(self.policy):
            # SB3 would play on with the noise matrix that it drew when the agent was loaded, one for all environments.
            obs, _ = self.policy.obs_to_tensor(observation)
            self.policy.reset_noise(n_observations(obs))
        found = find_not_finite("observation", observation) if self.has_distribution else None
        if found is not None and found[1].endswith(" nan"):
            # torch checks the numbers of its distributions only until something is compiled.
            raise ValueError(f"{self.source} cannot act, because {found[1]}: correct the environment.")
        actions, _ = self.policy.predict(observation, deterministic=deterministic)
        return actions, None

    @abstractmethod
    def answer(
        self, obs: PyTorchObs, state: Any = None, episode_start: np.ndarray | None = None, with_values: bool = False
    ) -> tuple[Answers, Any]:
        """
        What the distillation losses compare.

        :param obs: batch of raw observations as tensors; images channels first, as bytes
        :param state: the state that the last call returned for the same environments; None for an agent without memory
        :param episode_start: where an episode begins ``(batch,)``
        :param with_values: whether an agent with a critic is asked for its values, too
        :return: the answers, without gradient, and the next state
        """


class ValueTeacher(Teacher):
    """An agent with one number per action: DQN, or a distilled student."""

    kind = "value-based"

    @property
    def network(self) -> th.nn.Module:
        return self.policy.q_net

    @property
    def acting_modules(self) -> list[th.nn.Module]:
        return [self.policy.q_net.features_extractor, self.policy.q_net.q_net]

    @th.no_grad()
    def answer(
        self, obs: PyTorchObs, state: Any = None, episode_start: np.ndarray | None = None, with_values: bool = False
    ) -> tuple[Answers, Any]:
        return Answers(q_values=self.network(self.normalize(obs))), None


class QuantileTeacher(ValueTeacher):
    """An agent with several quantiles of the return per action, whose mean is the Q-value: QR-DQN."""

    @property
    def network(self) -> th.nn.Module:
        return self.policy.quantile_net

    @property
    def acting_modules(self) -> list[th.nn.Module]:
        assert self.n_actions is not None
        network = self.policy.quantile_net
        return [network.features_extractor, network.quantile_net, MeanOverQuantiles(self.n_actions)]

    @th.no_grad()
    def answer(
        self, obs: PyTorchObs, state: Any = None, episode_start: np.ndarray | None = None, with_values: bool = False
    ) -> tuple[Answers, Any]:
        return Answers(q_values=self.network(self.normalize(obs)).mean(dim=1)), None


class ActorCriticTeacher(Teacher):
    """An agent with a distribution over actions and a value: PPO, A2C, TRPO."""

    policy: ActorCriticPolicy
    kind = "actor-critic"
    has_distribution = True

    @property
    def network(self) -> th.nn.Module:
        return self.policy

    @property
    def acting_modules(self) -> list[th.nn.Module]:
        return actor_modules(self.policy)

    @property
    def has_critic(self) -> bool:
        return getattr(self.policy, "value_net", None) is not None

    def sample(
        self,
        observation: Any,
        rngs: Sequence[np.random.Generator],
        state: Any = None,
        episode_start: Any = None,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, Any]:
        """As ``Teacher.sample``; from other distributions than those of ``answer``, with torch's one generator."""
        if not is_known_distribution(self.policy.action_dist):
            return self.predict(observation, state, episode_start, deterministic=False)
        return super().sample(observation, rngs, state, episode_start, action_masks)

    @th.no_grad()
    def answer(
        self, obs: PyTorchObs, state: Any = None, episode_start: np.ndarray | None = None, with_values: bool = False
    ) -> tuple[Answers, Any]:
        self._check_distribution()
        return actor_critic_answers(self.policy, self.normalize(obs), with_values), None

    def _check_distribution(self) -> None:
        if not is_known_distribution(self.policy.action_dist):
            raise AgentError(
                f"{self.source} draws its actions, {self.action_space}, from a "
                f"{type(self.policy.action_dist).__name__}; distillation knows categorical distributions and diagonal "
                "Gaussians."
            )
