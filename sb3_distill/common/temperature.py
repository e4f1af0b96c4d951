"""What a temperature makes of a teacher's answers, and a rule that chooses one."""

import torch as th
from torch.nn import functional as F

from sb3_distill.common.answers import Answers

# Stands for the temperature that ``choose_temperature`` returns
AUTO = "auto"


def choose_temperature(answers: Answers) -> float:
    """
    The temperature at which the teacher's actions are told apart in the middle of its play: the median, over
    observations, of the standard deviation of the Q-values of all actions. Distributions over actions stay as they are.

    :param answers: the teacher's answers to some observations of its play
    :return: the temperature
    """
    if answers.q_values is None:
        return 1.0
    spread = answers.q_values.double().std(dim=1, correction=0).median()
    # A teacher that values all actions alike tells nothing at any temperature.
    return float(spread) or 1.0


def describe_temperature(answers: Answers, temperature: float) -> str:
    """
    :param answers: the teacher's answers to some observations of its play, of discrete actions
    :param temperature: the temperature
    :return: one line that says how far apart the teacher's actions are, and how sharp the temperature makes them
    """
    preferences = answers.preferences.double()
    best = preferences.topk(min(2, preferences.shape[1]), dim=1).values
    gaps = best[:, 0] - best[:, -1]
    quarter, middle, three_quarters = th.quantile(gaps, th.tensor([0.25, 0.5, 0.75], dtype=gaps.dtype)).tolist()
    share = F.softmax(preferences / temperature, dim=1).amax(dim=1).mean()
    return (
        f"Between the teacher's two best actions there are {quarter:.3g} to {three_quarters:.3g} (quartiles; median "
        f"{middle:.3g}). Temperature {temperature:.3g} gives the best action {share:.0%} of the probability on average."
    )
