"""RecurrentPPO, an actor-critic agent with LSTMs."""

from typing import Any

import numpy as np
import torch as th
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_distill.agents.agent import ActorCriticTeacher, AgentFacts
from sb3_distill.agents.kinds.acting import n_observations
from sb3_distill.agents.kinds.answering import AnsweringTeacher
from sb3_distill.common.answers import Answers, Gaussian
from sb3_distill.state.memory import State


class RecurrentTeacher(AnsweringTeacher, ActorCriticTeacher):
    """
    An actor-critic agent with LSTMs. Its state is a dictionary with the hidden and the cell state of the actor's and,
    if it has one, of the critic's, each ``(n_envs, n_layers, width)``.

    :param policy: the policy, which is frozen
    :param facts: everything else that is known of the agent
    """

    kind = "actor-critic with a memory"
    policy: RecurrentActorCriticPolicy

    def __init__(self, policy: Any, facts: AgentFacts) -> None:
        super().__init__(policy, facts)
        n_layers, _, width = policy.lstm_hidden_state_shape
        lstms = ["actor"] if policy.lstm_critic is None else ["actor", "critic"]
        self.state_form = {name: ((n_layers, width), (n_layers, width)) for name in lstms}

    @property
    def acting_modules(self) -> list[th.nn.Module]:
        extractor, *rest = super().acting_modules
        return [extractor, self.policy.lstm_actor, *rest]

    @th.no_grad()
    def answer(
        self, obs: PyTorchObs, state: State = None, episode_start: np.ndarray | None = None, with_values: bool = False
    ) -> tuple[Answers, State]:
        """As ``Teacher.answer``."""
        self._check_distribution()
        n_envs, device = n_observations(obs), self.device
        state = self._go_on(state, episode_start, n_envs)
        if state is None:
            state = {
                name: tuple(th.zeros(n_envs, *shape, device=device) for shape in pair)
                for name, pair in self.state_form.items()
            }
        # As torch's LSTM has them: (n_layers, n_envs, width)
        before = {name: tuple(part.transpose(0, 1).contiguous() for part in pair) for name, pair in state.items()}
        _, values, _, after = self.policy.forward(
            self.normalize(obs),  # type: ignore[arg-type]
            RNNStates(before["actor"], before.get("critic", before["actor"])),
            # They are at zero already where an episode begins.
            th.zeros(n_envs, device=device),
            deterministic=True,
        )
        found = {"actor": after.pi, "critic": after.vf}
        state = {name: tuple(part.transpose(0, 1).contiguous() for part in found[name]) for name in self.state_form}
        return self._latest_answers(values.squeeze(1) if with_values else None), state

    def _latest_answers(self, values: th.Tensor | None) -> Answers:
        distribution: Any = self.policy.action_dist.distribution
        if isinstance(self.policy.action_dist, CategoricalDistribution):
            return Answers(log_probs=distribution.logits, values=values)
        gaussian = Gaussian(distribution.mean, distribution.stddev, self.policy.squash_output)
        return Answers(gaussian=gaussian, values=values)
