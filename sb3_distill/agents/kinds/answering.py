"""What agents share whose actions follow from their answers alone."""

from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.files import AgentError
from sb3_distill.state.memory import State, begin_anew, find_state_problem, form_of, state_on


class AnsweringTeacher(Teacher):
    """An agent whose actions follow from its answers: it can have a memory, which goes from one call to the next."""

    # See ``form_of``; None if it has no memory
    state_form: Any = None

    @property
    def has_memory(self) -> bool:  # type: ignore[override]
        """Whether its answers depend on what it saw before, which is in its state."""
        return self.state_form is not None

    def _check_form(self, state: State) -> None:
        """Called with the state after each observation of the first ones: it must keep its form."""
        form = form_of(state)
        if self.state_form is None:
            self.state_form = form
        elif form != self.state_form:
            raise AgentError(
                f"{self.source}: its state has the shapes {self.state_form} after one observation, and {form} later. A "
                "memory must keep its shapes: cut or pad it to a fixed length."
            )

    def _go_on(self, state: State, episode_start: np.ndarray | None, n_envs: int) -> State:
        """The state on the agent's device, with zeros where an episode begins."""
        if state is None:
            return None
        problem = find_state_problem(state, n_envs)
        if problem is None and form_of(state) != self.state_form:
            problem = f"its arrays have the shapes {form_of(state)}, not {self.state_form}: it is another agent's"
        if problem is not None:
            raise AgentError(f"{self.source} cannot go on with this state: {problem}.")
        return begin_anew(state_on(state, self.policy.device), episode_start)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: Any = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = True,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, Any]:
        """
        As ``Teacher.predict``.

        :param observation: a single raw observation, or a batch of them
        :param state: the state that the last call returned
        :param episode_start: where an episode begins
        :param deterministic: False draws from the agent's distribution, with torch's generator
        :param action_masks: which discrete actions are allowed; None: all of them
        :return: the actions and the next state
        """
        return self._act_by_answers(observation, state, episode_start, deterministic, action_masks)


class NoPolicy(BasePolicy):
    """
    Stands in the place of an SB3 policy: it says how observations become tensors, and no more.

    :param observation_space: the agent's observations
    :param action_space: its actions
    :param squash_output: whether it squashes its actions
    """

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space, squash_output: bool) -> None:
        super().__init__(observation_space, action_space, squash_output=squash_output)
        # A tensor that moves with the rest, so that the device is known
        self.register_parameter("_place", th.nn.Parameter(th.empty(0), requires_grad=False))

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        raise NotImplementedError("The teacher acts, not this policy.")
