"""Several students of one run: one stream of play, one teacher's answers and one replay buffer for all."""

import copy
import inspect
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.type_aliases import MaybeCallback, TensorDict

from sb3_distill.base.callbacks import list_callbacks
from sb3_distill.base.distillation import DistillationAlgorithm
from sb3_distill.base.several.callbacks import evaluate_students_too
from sb3_distill.base.several.spec import (
    StudentsArgument,
    check_policy,
    check_shares,
    name_students,
    naming,
    read_entries,
)
from sb3_distill.common.schedules import read_schedule
from sb3_distill.common.utils import unchanged_randomness, unknown_choice

SelfSeveralStudents = TypeVar("SelfSeveralStudents", bound="SeveralStudentsMixin")
# What siblings take over from the run before they learn or are saved
_OF_THE_RUN = (
    "num_timesteps",
    "_n_updates",
    "_n_collected",
    "_current_progress_remaining",
    "_total_timesteps",
    "_callbacks",
    "_logger",
    "_teacher",
    "_vec_normalize_env",
    "_normalizer",
    "replay_buffer",
    "env_id",
    "taught_by",
    "teacher_sha256",
)


class SeveralStudentsMixin(DistillationAlgorithm):
    """
    Mixin of algorithms that can train further students beside their own, from the same minibatches. Each is a model of
    the same class with its own policy and optimizer, in ``siblings`` under its name.
    """

    # The arguments that a student can have for itself, and the attributes that change while it learns
    student_entries: ClassVar[tuple[str, ...]]
    student_state: ClassVar[tuple[str, ...]]
    run_attributes: ClassVar[tuple[str, ...]] = (*DistillationAlgorithm.run_attributes, "_student_states", "_left_out")
    # By name: the settings of each further student; at construction, as the user wrote them
    students: Any
    siblings: Any
    _student_states: dict[str, dict[str, Any]]
    # Names of students that the run has dropped
    _left_out: list[str]

    @classmethod
    def load(cls: type[SelfSeveralStudents], path: Any, *args: Any, **kwargs: Any) -> SelfSeveralStudents:
        """
        As SB3's. How students are computed (``bf16``, ``compile_update``) is passed for all of them.

        :param path: as SB3's
        :param args: as SB3's
        :param kwargs: as SB3's
        :return: the model
        """
        model = super().load(path, *args, **kwargs)
        computing = {"bf16", "compile_update"} & set(cls.student_entries)
        chosen = {key: value for key, value in kwargs.items() if key in computing}
        for name, sibling in vars(model.siblings).items():
            for attributes in (vars(sibling), model.students[name], model._student_states.get(name, {})):
                attributes.update(chosen)
        return model

    def _name_students(self, students: StudentsArgument | None) -> None:
        """Keep the argument, for ``_setup_model``."""
        if students is not None and not students:
            raise ValueError("students is empty: name at least one, such as {'small': {...}}, or leave it out.")
        self.students, self._student_states, self._left_out = students or {}, {}, []
        self.siblings = SimpleNamespace()

    def _setup_model(self) -> None:
        self._check_spaces()
        self.students = {name: self._complete(entries) for name, entries in self.read_students(self.students).items()}
        check_shares(self.rollout_policy, len(self.students) + 1, self.n_envs)
        super()._setup_model()
        self.siblings = SimpleNamespace()
        with unchanged_randomness():
            for index, name in enumerate(self.students):
                setattr(self.siblings, name, self._make_sibling(index, name))

    @classmethod
    def read_students(cls, students: StudentsArgument) -> dict[str, dict[str, Any]]:
        """
        :param students: the argument of the algorithm
        :return: by name, the settings that each further student has for itself
        :raises ValueError: a name is not allowed or occurs twice, or a setting or a policy is unknown
        """
        arguments = set(inspect.signature(cls.__init__).parameters) - {"self", *cls.student_entries}
        read = {}
        for name, entry in name_students(students).items():
            read[name] = entries = read_entries(name, entry, cls.student_entries, arguments)
            if "policy" in entries:
                check_policy(name, entries["policy"], cls.policy_aliases, BasePolicy)
                # Those of the first student belong to its own policy.
                entries.setdefault("policy_kwargs", {})
        return read

    def _complete(self, entries: dict[str, Any]) -> dict[str, Any]:
        """All settings of a student: those that the user wrote, else those of the first student."""
        # By name where it has one, as the Zoo's config.yml needs it
        aliases = {policy: alias for alias, policy in self.policy_aliases.items()}
        policy = aliases.get(self.policy_class, self.policy_class)
        own = {"policy": policy, "policy_kwargs": self.policy_kwargs}
        if "policy_kwargs" in entries and "optimizer_class" not in entries["policy_kwargs"]:
            # The learning rate that they share is one for this optimizer.
            optimizer = {name: value for name, value in self.policy_kwargs.items() if name.startswith("optimizer_")}
            entries = {**entries, "policy_kwargs": {**optimizer, **entries["policy_kwargs"]}}
        return {key: entries.get(key, own[key] if key in own else getattr(self, key)) for key in self.student_entries}

    def _make_sibling(self, index: int, name: str) -> "SeveralStudentsMixin":
        sibling = copy.copy(self)
        entries = dict(self.students[name])
        policy = entries.pop("policy")
        vars(sibling).update(entries)
        sibling.policy_class = self._get_policy_from_name(policy) if isinstance(policy, str) else policy
        sibling.policy_kwargs = copy.deepcopy(entries["policy_kwargs"])
        sibling.env = sibling.seed = sibling.recording = None
        setattr(sibling, self.teacher_argument, None)
        sibling.students, sibling._student_states, sibling._heading, sibling.verbose = {}, {}, name, 0
        if self.seed is not None:
            th.manual_seed(self.seed + 1 + index)
        with naming(name):
            if isinstance(sibling.learning_rate, str):
                sibling.learning_rate = read_schedule(sibling.learning_rate)
            sibling._setup_model()
        return sibling

    def _siblings(self) -> Mapping[str, "SeveralStudentsMixin"]:
        """The siblings by name, as far as the run has come."""
        siblings: dict[str, SeveralStudentsMixin] = vars(self.siblings)
        shared = {name: vars(self)[name] for name in _OF_THE_RUN if name in vars(self)}
        for sibling in siblings.values():
            vars(sibling).update(shared)
        return siblings

    def student_model(self, name: str) -> DistillationAlgorithm:
        """
        :param name: name of a further student
        :return: the student as a model, which predicts and saves. It is not a copy: it changes when this model learns.
        :raises ValueError: there is no such student
        """
        if name not in self.students:
            raise ValueError(unknown_choice("student", name, self.students))
        return self._siblings()[name]

    def drop_student(self, name: str) -> None:
        """
        Leave a further student out of the rest of the run. Where students act, the others also act in its environments;
        while the teacher plays, they learn as they would if it had stayed.

        :param name: name of a further student
        :raises ValueError: there is no such student
        """
        if name not in self.students:
            raise ValueError(unknown_choice("student", name, self.students))
        delattr(self.siblings, name)
        self._student_states.pop(name, None)
        del self.students[name]
        self._left_out = sorted({*self._left_out, name})

    def _further_models(self) -> list[DistillationAlgorithm]:
        return list(self._siblings().values())

    def train(self, gradient_steps: int, batch_size: int = 32) -> None:
        super().train(gradient_steps, batch_size)
        self._student_states = {
            name: {key: getattr(sibling, key) for key in self.student_state}
            for name, sibling in vars(self.siblings).items()
        }

    def _student_actions(self, obs: Any, allowed: np.ndarray | None) -> np.ndarray:
        if not self.students:
            return super()._student_actions(obs, allowed)
        models = [self, *self._further_models()]
        parts = []
        for index, model in enumerate(models):
            model.policy.set_training_mode(False)
            share = slice(index, None, len(models))
            own = {key: part[share] for key, part in obs.items()} if isinstance(obs, dict) else obs[share]
            own_allowed = None if allowed is None else allowed[share]
            parts.append(model._policy_actions(own, self._rollout_rng, own_allowed))
        actions = np.empty((self.n_envs, *parts[0].shape[1:]), parts[0].dtype)
        for index, part in enumerate(parts):
            actions[index :: len(models)] = part
        return actions

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        callbacks = list_callbacks(callback)
        if self.students:
            callbacks.append(evaluate_students_too(callbacks))
        return super()._init_callback(callbacks, progress_bar)

    def _restore_parameters(self, parameters: dict[str, Any]) -> None:
        for name in set(self.students) & set(self._left_out):
            self.drop_student(name)
        super()._restore_parameters(parameters)

    def set_parameters(
        self, load_path_or_dict: str | TensorDict, exact_match: bool = True, device: th.device | str = "auto"
    ) -> None:
        """
        As SB3's. Siblings go on with the temperature or the precision that they had.

        :param load_path_or_dict: as SB3's
        :param exact_match: as SB3's
        :param device: device on which the parameters are loaded
        """
        params: Any = load_path_or_dict
        if not isinstance(params, dict):
            _, params, _ = load_from_zip_file(params, device=device, load_data=False)
        for name, sibling in vars(self.siblings).items():
            prefix = f"siblings.{name}."
            own = {key.removeprefix(prefix): value for key, value in params.items() if key.startswith(prefix)}
            vars(sibling).update(self._student_states.get(name, {}))
            if own:
                sibling.set_parameters(own, exact_match, device)
        super().set_parameters(params, exact_match, device)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "siblings", "_heading"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        state_dicts, tensors = super()._get_torch_save_params()
        own = [f"siblings.{name}.{each}" for name in self.students for each in state_dicts]
        return [*state_dicts, *own], tensors
