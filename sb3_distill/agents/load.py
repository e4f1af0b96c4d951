"""Loads a trained agent from its files, or from an SB3 model in memory."""

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeGuard

import sb3_contrib
import stable_baselines3
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.type_aliases import GymEnv

from sb3_distill.agents.agent import (
    ActorCriticTeacher,
    AgentFacts,
    QuantileTeacher,
    Teacher,
    ValueTeacher,
)
from sb3_distill.agents.archive import read_archive
from sb3_distill.agents.config import read_keywords, read_yaml
from sb3_distill.agents.files import AS_MODEL, AgentError, AgentFiles, AgentNotFoundError
from sb3_distill.agents.kinds.ars import ARSTeacher
from sb3_distill.agents.kinds.maskable import MaskableTeacher
from sb3_distill.agents.kinds.off_policy import DeterministicTeacher, SquashedGaussianTeacher
from sb3_distill.agents.kinds.onnx import OnnxTeacher
from sb3_distill.agents.kinds.own import (
    OwnTeacher,
    TeacherLike,
    call_function,
    is_function_name,
    is_teacher_like,
    refuse_function_name,
)
from sb3_distill.agents.kinds.recurrent import RecurrentTeacher
from sb3_distill.agents.metadata import (
    find_algo,
    find_keys,
    find_normalization,
    find_recipe,
    plain_entries,
    plain_text,
    read_score,
    registered_name,
)
from sb3_distill.agents.normalization import normalization_of
from sb3_distill.agents.rebuild import BUILDERS
from sb3_distill.agents.rebuild.spaces import _space_of_env, read_space
from sb3_distill.agents.rebuild.weights import POLICY_MODULE
from sb3_distill.agents.sources import find_agent
from sb3_distill.algorithms import ALGORITHMS, STUDENTS, resolve
from sb3_distill.common.files import file_name
from sb3_distill.common.utils import unknown_choice
from sb3_distill.envs.inspection import env_id_of
from sb3_distill.networks.frozen import copy_policy, hash_weights
from sb3_distill.quantization.layers import describe_transition

_log = logging.getLogger(__name__)
# Modules of Stable-Baselines3 and SB3-contrib whose policies and features extractors can be rebuilt from weights
_STOCK_MODULES = (
    "stable_baselines3.common.policies",
    "stable_baselines3.common.torch_layers",
    "stable_baselines3.dqn.policies",
    "stable_baselines3.sac.policies",
    "stable_baselines3.td3.policies",
    "sb3_contrib.qrdqn.policies",
    "sb3_contrib.tqc.policies",
    "sb3_contrib.crossq.policies",
    "sb3_contrib.ars.policies",
    "sb3_contrib.common.recurrent.policies",
    "sb3_contrib.common.maskable.policies",
)
# SB3-contrib's PPOs by their keys
_NAMES = {"ppo_lstm": "RecurrentPPO", "ppo_mask": "MaskablePPO"}
# Class of agent by algorithm; all other algorithms are on-policy and actor-critic
_CLASSES: dict[str, type[Teacher]] = {
    "dqn": ValueTeacher,
    "qrdqn": QuantileTeacher,
    "pd": ValueTeacher,
    **dict.fromkeys(("sac", "tqc", "crossq"), SquashedGaussianTeacher),
    **dict.fromkeys(("td3", "ddpg"), DeterministicTeacher),
    "ars": ARSTeacher,
    "ppo_lstm": RecurrentTeacher,
    "ppo_mask": MaskableTeacher,
}


def load_teacher(
    source: str | Path | BaseAlgorithm | Teacher | TeacherLike,
    *,
    device: th.device | str = "auto",
    env_id: str | None = None,
    env: GymEnv | None = None,
    allow_pickle: bool = False,
    local_only: bool = False,
    teacher_kwargs: Mapping[str, Any] | None = None,
) -> Teacher:
    """
    Load a trained agent, a teacher or a student, without unpickling anything from its files (unless ``allow_pickle`` is
    set).

    :param source: an SB3 model; the path of a zip or of a run folder; ``"zoo:dqn/PongNoFrameskip-v4"``;
        ``"hub:sb3/dqn-PongNoFrameskip-v4@REVISION"``; a file ``.onnx``; an object of your own (see ``TeacherLike``), or
        the name of a function that makes one, ``"package.module:make_teacher"``, whose package was named with
        ``--gym-packages``; or a teacher that is loaded already
    :param device: device of the teacher's networks
    :param env_id: the environment that the agent was trained on, if its files do not say it
    :param env: an environment with the agent's spaces, if neither its files nor a registered environment state them
    :param allow_pickle: load the file with SB3's own ``load``, which runs any code that the file holds. Needed for
        agents with custom layers; only for files that you trust.
    :param local_only: do not ask the hub for what is not on this machine; for a source that a file names
    :param teacher_kwargs: what an ONNX file does not say of itself (see ``OnnxOptions``)
    :return: the agent
    :raises AgentError: the agent cannot be found or cannot be used
    """
    if teacher_kwargs is not None and not isinstance(teacher_kwargs, Mapping):
        raise AgentError(
            "teacher_kwargs must be a dictionary of options, such as dict(answers='logits'), not "
            f"{teacher_kwargs!r:.200}."
        )
    if is_onnx_file(source):
        return _from_onnx(Path(source), teacher_kwargs, env_id, env)
    if teacher_kwargs:
        raise AgentError(f"teacher_kwargs say what an ONNX file does not, and {source} is none: leave them out.")
    if is_function_name(source):
        if local_only:
            refuse_function_name(source, "A file")
        return _from_object(call_function(str(source)), device, env_id, str(source))
    if not isinstance(source, (str, os.PathLike)):
        return _from_object(source, device, env_id)
    return _from_source(source, env_id, env, allow_pickle, local_only).to(device)


def is_onnx_file(source: Any) -> TypeGuard[str | Path]:
    """
    :param source: see ``load_teacher``
    :return: whether it names an ONNX file
    """
    return isinstance(source, (str, os.PathLike)) and Path(source).suffix.lower() == ".onnx"


def check_teacher_kwargs(teacher_kwargs: Mapping[str, Any] | None, sources: Sequence[Any]) -> None:
    """
    :param teacher_kwargs: what a user says of ONNX files beside them
    :param sources: the agents that the user names
    :raises AgentError: none of them is an ONNX file
    """
    if teacher_kwargs and not any(map(is_onnx_file, sources)):
        named = ", ".join(str(source) for source in sources if source is not None)
        raise AgentError(
            f"teacher_kwargs (--teacher-kwargs) say what an ONNX file does not, and none is named: {named}."
        )


def _from_object(source: Any, device: th.device | str, env_id: str | None, name: str | None = None) -> Teacher:
    if isinstance(source, Teacher):
        return source.to(device)
    if isinstance(source, BaseAlgorithm):
        return _from_model(source, env_id).to(device)
    if isinstance(source, type) and issubclass(source, BaseAlgorithm):
        raise AgentError(
            f"The class {source.__name__} was passed as a teacher, not a model: pass {source.__name__}.load(PATH), or "
            "the path."
        )
    if is_teacher_like(source):
        return OwnTeacher(source, name, env_id, device)
    raise AgentError(
        "A teacher is an SB3 model, a path, 'zoo:algo/env', 'hub:owner/name', a loaded teacher, or an object with "
        f"observation_space, action_space and answer(obs, state, episode_start); not {name or source!r}."
    )


def _from_onnx(path: Path, teacher_kwargs: Mapping[str, Any] | None, env_id: str | None, env: Any) -> Teacher:
    if not path.is_file():
        raise AgentNotFoundError(f"There is no file {path}.")
    if env is None:
        names = ("observation_space", "action_space")
        env = SimpleNamespace(**{name: _space_of_env(env_id, name) for name in names})
    try:
        return OnnxTeacher(path, teacher_kwargs, env_id, env)
    except (AgentError, OSError):
        raise
    except Exception as error:
        # The file, and what a student's file says of it, can be any nonsense.
        reason = " ".join(str(error).split())
        raise AgentError(f"{path} cannot be used as a teacher ({type(error).__name__}: {reason:.300}).") from error


def _from_source(
    source: str | Path, env_id: str | None, env: GymEnv | None, allow_pickle: bool, local_only: bool
) -> Teacher:
    files = find_agent(source, local_only)
    try:
        teacher = _from_files(files, str(source), env_id, env, allow_pickle)
    except AgentError as error:
        if str(source) in str(error):
            raise
        raise AgentError(f"{source}: {error}") from error
    except OSError:
        raise
    except Exception as error:
        # The files can hold any nonsensical values, for which SB3's constructors raise many types of exceptions.
        reason = str(error).splitlines()[0] if str(error) else "no details"
        advice = (
            "SB3's own load cannot read them: make the modules of the agent's own classes importable, or pass it "
            f"{AS_MODEL}."
            if allow_pickle
            else f"They are damaged, or the agent is of a kind that is not supported: pass it {AS_MODEL}."
        )
        raise AgentError(
            f"{source} cannot be rebuilt from its files ({type(error).__name__}: {reason}). {advice}"
        ) from error
    teacher.facts = replace(teacher.facts, found=files.summary)
    _log.info("Loaded %s", files.summary)
    return teacher


def _teacher_class(algo: str) -> type[Teacher]:
    if algo == "mtpd":
        raise AgentError(
            "This agent plays several tasks: cut one out with MultiTaskDistillation's model.task(NAME).save(PATH), and "
            "pass that file. (A multi-task DQN cannot be cut into tasks.)"
        )
    if algo not in BUILDERS:
        raise AgentError(unknown_choice("algorithm of a teacher", algo, BUILDERS))
    return _CLASSES.get(algo, ActorCriticTeacher)


def _from_model(model: BaseAlgorithm, env_id: str | None) -> Teacher:
    names = {
        "PolicyDistillation": "pd",
        **{name: key for key, name in _NAMES.items()},
        # Its base is PPO
        "ProximalPolicyDistillation": "ppd",
        "MultiTaskDistillation": "mtpd",
        "MultiTaskDQN": "mtpd",
    }
    known = {*BUILDERS, *names.values()}
    # Search the base classes too, so that users' subclasses of these algorithms are accepted.
    algo = next(
        (name for cls in type(model).__mro__ if (name := names.get(cls.__name__, cls.__name__.lower())) in known), ""
    )
    teacher_class = _teacher_class(algo or type(model).__name__)
    vec_normalize = model.get_vec_normalize_env()
    normalization = None
    if vec_normalize is not None and vec_normalize.norm_obs:
        normalization = normalization_of(
            vec_normalize.obs_rms, vec_normalize.norm_obs_keys, vec_normalize.epsilon, vec_normalize.clip_obs
        )
    env = model.get_env()
    if env_id is None and env is not None:
        env_id = env_id_of(env)
    keys = getattr(model, "student_keys", None)
    facts = AgentFacts(
        algo,
        f"{type(model).__name__} model",
        hash_weights(model.policy),
        env_id,
        None if normalization is None else normalization.of_keys(keys),
        student_keys=keys,
        teacher_keys=getattr(model, "teacher_keys", None),
    )
    return teacher_class(copy_policy(model.policy), facts)


def _from_files(files: AgentFiles, source: str, env_id: str | None, env: GymEnv | None, allow_pickle: bool) -> Teacher:
    archive = read_archive(files.zip_path)
    config, arguments = read_yaml(files.yaml("config.yml")), read_yaml(files.yaml("args.yml"))
    own_env_id, run_env_id = plain_text(archive.data.get("env_id")), plain_text(arguments.get("env")) or files.env_id
    if own_env_id and run_env_id and file_name(own_env_id) != file_name(run_env_id.rpartition(":")[2]):
        # A task that was cut out of a student of several is saved in a run whose settings are those of all tasks.
        files, config, arguments, run_env_id = AgentFiles(files.zip_path), {}, {}, None
    algo = find_algo(archive.data, arguments.get("algo") or files.algo)
    teacher_class = _teacher_class(algo)
    env_id = env_id or run_env_id or own_env_id or registered_name(files.zip_path.stem)
    if env_id is None and files.folder is not None:
        env_id = registered_name(files.folder.name)
    if allow_pickle:
        policy = _load_with_sb3("rtpd" if "act_with" in archive.data else algo, files.zip_path)
    else:
        # The zip knows its own policy; the configuration beside it can be that of a run with other policies too.
        saved = archive.data.get("policy_kwargs")
        kwargs = plain_entries(saved) if isinstance(saved, dict) else read_keywords(config.get("policy_kwargs", {}))
        kwargs[POLICY_MODULE] = plain_entries(archive.data.get("policy_class")).get("__module__")
        _check_stock(kwargs)
        observation_space = read_space(archive.data, "observation_space", env_id, env)
        action_space = read_space(archive.data, "action_space", env_id, env)
        policy = BUILDERS[algo](archive.weights, observation_space, action_space, kwargs)
    transition = describe_transition(policy)
    if transition:
        warnings.warn(
            f"{source} is still in the transition to its final precision ({transition}), so its weights are still "
            "float32: use the run's last model instead of best_model.zip, or finish its training."
        )
    keys = find_keys(archive.data) if algo in ("pd", "qpd") else None
    normalization = find_normalization(files, config)
    normalization = None if normalization is None else normalization.of_keys(keys)
    note = None if normalization is None else files.statistics_note
    if note is not None:
        warnings.warn(f"{source}: {note}")
    facts = AgentFacts(
        algo,
        source,
        archive.sha256,
        env_id,
        normalization,
        archive.zip_bytes,
        read_score(files),
        # An agent of rtpd may have started from another one, but it is no student.
        plain_text(archive.data.get("taught_by")) if algo in STUDENTS else None,
        plain_text(archive.data.get("teacher_sha256")) if algo in STUDENTS else None,
        plain_entries(archive.data.get("teacher_kwargs")) or None,
        find_recipe(files, config, arguments, archive.data.get("frame_stack")),
        is_rebuilt=not allow_pickle,
        statistics_note=note,
        student_keys=keys,
        teacher_keys=find_keys(archive.data, "teacher_keys") if algo in ("pd", "qpd") else None,
    )
    return teacher_class(policy, facts)


def _check_stock(kwargs: dict[str, Any]) -> None:
    """Refuse custom classes: their weights may have the shapes of SB3's layers but a different forward pass."""
    policy_module = kwargs[POLICY_MODULE]
    extractor = str(kwargs.get("features_extractor_class") or "").removeprefix("<class ").strip("'>")
    extractor_module = extractor.rpartition(".")[0]
    for field, name, module in (
        ("policy_class", policy_module, policy_module),
        ("features_extractor_class", extractor, extractor_module),
    ):
        if module and module not in _STOCK_MODULES and not module.startswith("sb3_distill."):
            raise AgentError(
                f"Its {field} is not one of SB3's own ({name}), so it cannot be rebuilt from its weights. Pass the "
                f"agent {AS_MODEL}, or, if you trust its file, load it with allow_pickle=True (export: "
                "--allow-pickle)."
            )


def _load_with_sb3(algo: str, path: Path) -> Any:
    custom_objects: dict[str, Any] = {"learning_rate": 0.0, "lr_schedule": None}
    if algo in ALGORITHMS:
        model_class = resolve(algo)
    else:
        module = sb3_contrib if algo in ("qrdqn", "trpo", "tqc", "crossq", "ars", *_NAMES) else stable_baselines3
        names = {"crossq": "CrossQ", **_NAMES}
        model_class = getattr(module, names.get(algo, algo.upper()))
        # The memory is not needed, and that of HER would need an environment.
        custom_objects |= {"buffer_size": 1, "replay_buffer_class": None}
    return model_class.load(path, device="cpu", custom_objects=custom_objects).policy
