"""Figure D2 of Rusu et al. 2015: t-SNE of the activations of the first and the last hidden layer, coloured by game."""

from collections.abc import Sequence

import numpy as np
import torch as th
from matplotlib.figure import Figure
from torch import nn

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.chain import chain_of
from sb3_distill.agents.files import AgentError
from sb3_distill.results.figures import HEIGHT, WIDTH, add_legend, marker_style, short_name


@th.no_grad()
def early_and_late(agent: Teacher, observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    :param agent: a loaded agent
    :param observations: raw observations ``(n, ...)``
    :return: activations of the first convolution (or fully connected layer), and of the last hidden layer, both
        ``(n, ...)`` flattened
    :raises AgentError: the agent has no hidden layer
    """
    layers = chain_of(agent)
    weighted = [index for index, layer in enumerate(layers) if isinstance(layer, (nn.Conv2d, nn.Linear))]
    if len(weighted) < 2:
        raise AgentError(f"{agent.source} has no hidden layer whose activations could be shown: use a deeper student.")
    # Indices of the activation functions after the first layer and after the last hidden one
    first, last = weighted[0] + 1, weighted[-1] - 1
    x = agent.normalize(th.as_tensor(observations, device=agent.device)).float()  # type: ignore[union-attr]
    early = x
    for index, layer in enumerate(layers[: last + 1]):
        x = layer(x)
        if index == first:
            early = x
    return early.flatten(1).cpu().numpy(), x.flatten(1).cpu().numpy()


def plot_tsne(
    games: Sequence[str], activations: Sequence[tuple[np.ndarray, np.ndarray]], perplexity: float = 30.0, seed: int = 0
) -> Figure:
    """
    :param games: names of the games
    :param activations: for each game, the result of ``early_and_late``
    :param perplexity: perplexity of t-SNE
    :param seed: seed of t-SNE
    :return: the figure, with the first layer on the left and the last hidden layer on the right
    :raises ValueError: the games' activations have different shapes
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    labels = np.concatenate([np.full(len(early), index) for index, (early, _) in enumerate(activations)])
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    for axes, layer, title in zip(figure.subplots(1, 2), (0, 1), ("first layer", "last hidden layer"), strict=True):
        shapes = {pair[layer].shape[1] for pair in activations}
        if len(shapes) > 1:
            raise ValueError(f"The {title} has {sorted(shapes)} activations: the agents must have one trunk in common.")
        points = np.concatenate([pair[layer] for pair in activations])
        # As is common, reduce the dimension by PCA before t-SNE.
        points = PCA(min(50, *points.shape), random_state=seed).fit_transform(points)
        placed = TSNE(perplexity=min(perplexity, (len(points) - 1) / 3), random_state=seed).fit_transform(points)
        for index, game in enumerate(games):
            axes.scatter(*placed[labels == index].T, s=3, **marker_style(index), label=short_name(game))
        axes.set_title(title, fontsize="medium")
        axes.set_xticks([])
        axes.set_yticks([])
    add_legend(figure, below=True, ncols=3, markerscale=3, handles=axes.get_legend_handles_labels()[0])
    return figure
