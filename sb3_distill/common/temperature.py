"""What a temperature makes of a teacher's answers, and a rule that chooses one."""

from typing import Any

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


def settle_temperature(temperature: Any, answers: Answers, says: bool, about: str = "") -> Any:
    """
    :param temperature: the user's temperature
    :param answers: the teacher's answers to some observations of its play
    :param says: whether to print what the temperature makes of them
    :param about: whose temperature it is, for the printed line
    :return: the temperature, chosen from the answers if the user's is ``AUTO``
    """
    chosen = choose_temperature(answers) if temperature == AUTO else temperature
    if says:
        print(about + describe_temperature(answers, chosen))
    return chosen


def check_number(temperature: Any, reason: str) -> None:
    """
    :param temperature: the user's temperature
    :param reason: why there is no rule that chooses it
    :raises ValueError: it is ``AUTO``
    """
    if temperature == AUTO:
        raise ValueError(f"temperature={AUTO!r} is not possible here: {reason}")


def describe_temperature(answers: Answers, *temperatures: float) -> str:
    """
    :param answers: the teacher's answers to some observations of its play, of discrete actions
    :param temperatures: the temperature, or several
    :return: one line that says how far apart the teacher's actions are, and how sharp the temperatures make them
    """
    preferences = answers.preferences.double()
    best = preferences.topk(min(2, preferences.shape[1]), dim=1).values
    gaps = best[:, 0] - best[:, -1]
    quarter, middle, three_quarters = th.quantile(gaps, th.tensor([0.25, 0.5, 0.75], dtype=gaps.dtype)).tolist()
    of = "log-probabilities" if answers.q_values is None else "Q-values"
    sentences = [
        f"The teacher's {of} of its two best actions differ by {quarter:.3g} to {three_quarters:.3g} (quartiles; "
        f"median {middle:.3g})."
    ]
    for temperature in temperatures:
        share = F.softmax(preferences / temperature, dim=1).amax(dim=1).mean()
        sentences.append(
            f"Temperature {temperature:.3g} gives the best action {share:.0%} of the probability on average."
        )
    return " ".join(sentences)
