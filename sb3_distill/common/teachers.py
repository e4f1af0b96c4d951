"""Trained agents as teachers."""

import hashlib
import os
import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import sb3_contrib
import stable_baselines3
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.utils import get_device

from sb3_distill.common.actor_critic_policies import actor_modules
from sb3_distill.common.agent_data import (
    find_algo,
    find_normalization,
    plain_entries,
    plain_text,
    read_score,
    read_space,
    registered_name,
)
from sb3_distill.common.archive import (
    Normalization,
    TeacherError,
    TeacherNotFoundError,
    read_archive,
    read_keywords,
    read_yaml,
)
from sb3_distill.common.packing import count_parameters, stored_bytes
from sb3_distill.common.quantization import describe_transition
from sb3_distill.common.teacher_policies import BUILDERS, copy_policy, freeze
from sb3_distill.common.teacher_sources import AgentFiles, find_agent, find_zoo_teacher
from sb3_distill.common.utils import env_id_of, unknown_choice

__all__ = [
    "ActorCriticTeacher",
    "Teacher",
    "TeacherError",
    "TeacherNotFoundError",
    "ValueTeacher",
    "find_zoo_teacher",
    "load_teacher",
]

# Where Stable-Baselines3 and SB3-contrib keep what can be rebuilt from weights
_STOCK_MODULES = (
    "stable_baselines3.common.policies",
    "stable_baselines3.common.torch_layers",
    "stable_baselines3.dqn.policies",
    "sb3_contrib.qrdqn.policies",
)

# SB3's and SB3-contrib's algorithms for continuous actions without a distribution that we compare
_OTHER_ACTORS = ("sac", "td3", "ddpg", "tqc", "crossq")

SelfTeacher = TypeVar("SelfTeacher", bound="Teacher")


class Teacher(ABC):
    """
    A trained agent that answers and never learns.

    Observations are raw ones, as the environment gives them: a teacher that was trained behind VecNormalize applies
    its own statistics.

    :param policy: the SB3 policy, which the teacher freezes
    :param algo: key of the algorithm in the Zoo, e.g. "dqn"
    :param source: where the agent was found
    :param sha256: of its zip, or of its weights where there is no zip
    :param env_id: the environment it was trained on, if known
    :param normalization: VecNormalize's statistics, if it was trained with them
    :param n_bytes: size of its zip
    :param recorded_score: the score that its run folder records
    :param teacher_source: where the teacher of a student was found
    :param frame_stack: number of stacked frames; None: as many as an image has channels
    :param env_kwargs: arguments of the environment it was trained on; None where they are not known
    """

    def __init__(
        self,
        policy: Any,
        algo: str,
        source: str,
        sha256: str,
        env_id: str | None = None,
        normalization: Normalization | None = None,
        n_bytes: int | None = None,
        recorded_score: dict[str, Any] | None = None,
        teacher_source: str | None = None,
        frame_stack: int | None = None,
        env_kwargs: dict[str, Any] | None = None,
    ) -> None:
        if normalization is not None and normalization.mean.shape != policy.observation_space.shape:
            raise TeacherError(
                f"The VecNormalize statistics of {source} are of shape {normalization.mean.shape}, its observations of "
                f"shape {policy.observation_space.shape}: they belong to another agent, or frames were stacked after "
                "normalisation, which is not supported."
            )
        self.policy = freeze(policy)
        self.algo = algo
        self.source = source
        self.sha256 = sha256
        self.env_id = env_id
        self.normalization = normalization
        self.n_bytes = n_bytes
        self.recorded_score = recorded_score
        self.teacher_source = teacher_source
        self._frame_stack = frame_stack
        self.env_kwargs = env_kwargs
        self._set_normalization_tensors()

    @property
    @abstractmethod
    def network(self) -> th.nn.Module:
        """What is asked for answers: the Q-network, or actor and critic."""

    @property
    @abstractmethod
    def acting_modules(self) -> list[th.nn.Module]:
        """The parts of its policy that act, in the order in which an observation passes them."""

    @property
    def observation_space(self) -> spaces.Space:
        """Space of the raw observations."""
        space = self.policy.observation_space
        if self.normalization is not None and isinstance(space, spaces.Box):
            # Statistics say nothing of the raw bounds.
            return spaces.Box(-np.inf, np.inf, space.shape, space.dtype)
        return space

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
        if self._frame_stack is not None:
            return self._frame_stack
        shape = self.observation_space.shape
        return shape[0] if shape is not None and is_image_space(self.observation_space, check_channels=False) else None

    @property
    def n_parameters(self) -> int:
        """Number of parameters of what acts: without target networks, without the critic of an actor-critic agent."""
        return count_parameters(self.acting_modules)

    @property
    def stored_bytes(self) -> int:
        """Bytes of what acts: packed where it is quantized, float32 otherwise."""
        return stored_bytes(self.acting_modules)

    @property
    def device(self) -> th.device:
        """Where the networks are."""
        return self.policy.device

    def to(self: SelfTeacher, device: th.device | str) -> SelfTeacher:
        """
        Move the networks.

        :param device: cpu, cuda, auto
        :return: the teacher itself
        """
        self.policy.to(get_device(device))
        if getattr(self.policy, "use_sde", False):
            # As SB3's load: exploration matrices are no parameters, and were drawn before the weights were there.
            self.policy.reset_noise()
        self._set_normalization_tensors()
        return self

    def _set_normalization_tensors(self) -> None:
        if self.normalization is not None:
            scale = np.sqrt(self.normalization.var + self.normalization.epsilon)
            self._mean = th.tensor(self.normalization.mean, device=self.device)
            self._scale = th.tensor(scale, device=self.device)

    def normalize(self, obs: PyTorchObs) -> PyTorchObs:
        """
        Apply the agent's own VecNormalize statistics, in float64 as VecNormalize does.

        :param obs: batch of raw observations
        :return: what the policy takes
        """
        if self.normalization is None:
            return obs
        assert isinstance(obs, th.Tensor)
        clip = self.normalization.clip_obs
        return ((obs.double() - self._mean) / self._scale).clamp(-clip, clip).float()

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: Any = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, None]:
        """
        Get the agent's action, as every SB3 model does.

        :param observation: raw observation, or a batch of them
        :param state: unused (recurrent policies only)
        :param episode_start: unused (recurrent policies only)
        :param deterministic: False samples from the distribution of an actor-critic agent; a value-based agent is
            greedy always
        :return: the actions and None
        """
        if self.normalization is not None:
            raw = th.as_tensor(np.asarray(observation), device=self.device)
            observation = self.normalize(raw).cpu().numpy()  # type: ignore[union-attr]
        actions, _ = self.policy.predict(observation, deterministic=deterministic)
        return actions, None

    @abstractmethod
    def logits(self, obs: PyTorchObs) -> th.Tensor:
        """
        What the distillation losses compare: Q-values, or the log-probabilities of an actor-critic agent.

        :param obs: batch of raw observations as tensors; images channels first, as bytes
        :return: ``(batch, n_actions)``, without gradient
        """


class ValueTeacher(Teacher):
    """A teacher with one number per action: DQN, QR-DQN, or a distilled student."""

    @property
    def network(self) -> th.nn.Module:
        return self.policy.quantile_net if self.algo == "qrdqn" else self.policy.q_net

    @property
    def acting_modules(self) -> list[th.nn.Module]:
        network: Any = self.network
        return [network.features_extractor, network.quantile_net if self.algo == "qrdqn" else network.q_net]

    @th.no_grad()
    def q_values(self, obs: PyTorchObs) -> th.Tensor:
        """
        :param obs: batch of raw observations as tensors
        :return: Q-values ``(batch, n_actions)``; of QR-DQN the mean over the quantiles
        """
        values = self.network(self.normalize(obs))
        return values.mean(dim=1) if self.algo == "qrdqn" else values

    def logits(self, obs: PyTorchObs) -> th.Tensor:
        return self.q_values(obs)


class ActorCriticTeacher(Teacher):
    """A teacher with a distribution over actions and a value: PPO, A2C, TRPO."""

    policy: ActorCriticPolicy

    @property
    def network(self) -> th.nn.Module:
        return self.policy

    @property
    def acting_modules(self) -> list[th.nn.Module]:
        return actor_modules(self.policy)

    @th.no_grad()
    def distribution(self, obs: PyTorchObs) -> Distribution:
        """
        :param obs: batch of raw observations as tensors
        :return: the distribution over actions
        """
        return self.policy.get_distribution(self.normalize(obs))

    @th.no_grad()
    def values(self, obs: PyTorchObs) -> th.Tensor:
        """
        :param obs: batch of raw observations as tensors
        :return: the critic's values ``(batch, 1)``
        """
        return self.policy.predict_values(self.normalize(obs))

    def logits(self, obs: PyTorchObs) -> th.Tensor:
        if not isinstance(self.action_space, spaces.Discrete):
            raise TeacherError(f"{self.source} has no logits: its actions are {self.action_space}, not Discrete.")
        return self.distribution(obs).distribution.logits  # type: ignore[union-attr]


def load_teacher(
    source: str | Path | BaseAlgorithm | Teacher,
    *,
    device: th.device | str = "auto",
    env_id: str | None = None,
    allow_pickle: bool = False,
) -> Teacher:
    """
    Load a trained agent as a teacher, without unpickling anything that is in its files.

    :param source: an SB3 model; the path of a zip or of a run folder; ``"zoo:dqn/PongNoFrameskip-v4"``;
        ``"hub:sb3/dqn-PongNoFrameskip-v4@REVISION"``; or a teacher
    :param device: where its networks go
    :param env_id: the environment it was trained on, where its files do not say
    :param allow_pickle: load a file with SB3's own ``load``, which runs whatever code the file holds: for agents with
        custom layers whose source you trust
    :return: the teacher
    :raises TeacherError: what is wrong with the files, and what to do
    """
    if isinstance(source, Teacher):
        return source.to(device)
    if isinstance(source, BaseAlgorithm):
        return _from_model(source, env_id).to(device)
    if not isinstance(source, (str, os.PathLike)):
        raise TeacherError(
            f"A teacher is an SB3 model, a path, 'zoo:algo/env', 'hub:owner/name' or a loaded teacher, not {source!r}."
        )
    files = find_agent(source)
    try:
        teacher = _from_files(files, str(source), env_id, allow_pickle)
    except TeacherError as error:
        if str(source) in str(error):
            raise
        raise TeacherError(f"{source}: {error}") from error
    except OSError:
        raise
    except Exception as error:
        # What the files claim can be nonsense of any kind, and SB3's constructors fail on it in as many ways.
        reason = str(error).splitlines()[0] if str(error) else "no details"
        raise TeacherError(
            f"{source} cannot be rebuilt from what its files say ({type(error).__name__}: {reason}). They are damaged, "
            "or of a kind that is not supported; an agent of your own can be given as a loaded SB3 model."
        ) from error
    return teacher.to(device)


def _teacher_class(algo: str) -> type[Teacher]:
    if algo.lower() in _OTHER_ACTORS:
        raise TeacherError(
            f"This is a {algo.lower()} agent, whose actor is neither categorical nor a plain Gaussian: its answers "
            "cannot be distilled. For continuous actions train a PPO, A2C or TRPO agent."
        )
    if algo == "mtpd":
        raise TeacherError(
            "This agent plays several tasks: cut one out with MultiTaskDistillation's model.task(NAME).save(PATH), and "
            "name that file. (A multi-task DQN cannot be cut.)"
        )
    if algo not in BUILDERS:
        raise TeacherError(unknown_choice("algorithm of a teacher", algo, BUILDERS))
    return ActorCriticTeacher if algo in ("ppo", "a2c", "trpo", "qpd") else ValueTeacher


def _from_model(model: BaseAlgorithm, env_id: str | None) -> Teacher:
    names = {"PolicyDistillation": "pd", "MultiTaskDistillation": "mtpd", "MultiTaskDQN": "mtpd"}
    known = {*BUILDERS, *names.values()}
    # Subclasses of the five algorithms are welcome.
    algo = next(
        (name for cls in type(model).__mro__ if (name := names.get(cls.__name__, cls.__name__.lower())) in known), ""
    )
    teacher_class = _teacher_class(algo or type(model).__name__)
    vec_normalize = model.get_vec_normalize_env()
    normalization = None
    if vec_normalize is not None and vec_normalize.norm_obs:
        statistics = vec_normalize.obs_rms
        if isinstance(statistics, dict):
            raise TeacherError("VecNormalize statistics of Dict observations are not supported.")
        normalization = Normalization(
            statistics.mean.copy(), statistics.var.copy(), vec_normalize.epsilon, vec_normalize.clip_obs
        )
    env = model.get_env()
    if env_id is None and env is not None:
        env_id = env_id_of(env)
    digest = hashlib.sha256()
    for name, tensor in model.policy.state_dict().items():
        digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    return teacher_class(
        copy_policy(model.policy), algo, f"{type(model).__name__} model", digest.hexdigest(), env_id, normalization
    )


def _from_files(files: AgentFiles, source: str, env_id: str | None, allow_pickle: bool) -> Teacher:
    archive = read_archive(files.zip_path)
    config, arguments = read_yaml(files.yaml("config.yml")), read_yaml(files.yaml("args.yml"))
    algo = find_algo(archive.data, arguments.get("algo") or files.algo)
    teacher_class = _teacher_class(algo)
    env_id = env_id or plain_text(arguments.get("env")) or files.env_id or registered_name(files.zip_path.stem)
    if allow_pickle and algo not in ("pd", "qpd"):
        policy = _load_with_sb3(algo, files.zip_path)
    else:
        kwargs = {**read_keywords(config.get("policy_kwargs", {})), **plain_entries(archive.data.get("policy_kwargs"))}
        _check_stock(archive.data, kwargs)
        observation_space = read_space(archive.data, "observation_space", env_id)
        action_space = read_space(archive.data, "action_space", env_id)
        policy = BUILDERS[algo](archive.weights, observation_space, action_space, kwargs)
    transition = describe_transition(policy)
    if transition:
        warnings.warn(
            f"{source} is still in the transition to its final precision ({transition}), so its size is that of "
            "float32: take the run's last model rather than best_model.zip, or finish its training."
        )
    return teacher_class(
        policy,
        algo,
        source,
        archive.sha256,
        env_id,
        find_normalization(files, config),
        archive.n_bytes,
        read_score(files),
        # Of a student its teacher; real-time distillation calls something else by this name.
        plain_text(archive.data.get("teacher_source")) if algo in ("pd", "qpd") else None,
        # A configuration without the entry is that of an agent without a stack.
        config.get("frame_stack", 1) if config else None,
        # As the Zoo's enjoy finds them
        read_keywords(arguments.get("env_kwargs") or config.get("env_kwargs") or {}) if arguments or config else None,
    )


def _check_stock(data: dict[str, Any], kwargs: dict[str, Any]) -> None:
    """Layers of the agent's own may have weights of the stock shapes and compute something else."""
    policy_module = plain_entries(data.get("policy_class")).get("__module__")
    extractor = str(kwargs.get("features_extractor_class") or "").removeprefix("<class ").strip("'>")
    extractor_module = extractor.rpartition(".")[0]
    for field, name, module in (
        ("policy_class", policy_module, policy_module),
        ("features_extractor_class", extractor, extractor_module),
    ):
        if module and module not in _STOCK_MODULES and not module.startswith("sb3_distill."):
            raise TeacherError(
                f"Its {field} is not one of SB3's own ({name}), so it cannot be rebuilt from its weights. Give the "
                "agent as a loaded SB3 model, or pass allow_pickle=True to load_teacher where you trust its file."
            )


def _load_with_sb3(algo: str, path: Path) -> Any:
    module = sb3_contrib if algo in ("qrdqn", "trpo") else stable_baselines3
    model_class = getattr(module, algo.upper())
    return model_class.load(path, device="cpu", custom_objects={"learning_rate": 0.0, "lr_schedule": None}).policy
