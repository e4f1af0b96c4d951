"""Figure D2 of Rusu et al. 2015: t-SNE of the first layer and of the last shared one, coloured by game."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch as th
from matplotlib.figure import Figure
from torch import nn

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.chain import chain_of
from sb3_distill.agents.files import AgentError
from sb3_distill.results.figures import HEIGHT, WIDTH, add_legend, marker_style, short_name

# What can be shown: the first layer (a convolution where agents have any), the last one that all agents have in common,
# and the last hidden one, which tasks of one student have each for itself
LAYERS = ("first", "shared", "last")
# Of t-SNE, about the number of neighbours of a point; with few points it is less
_PERPLEXITY = 30.0


def hidden_layers(agent: Teacher) -> list[nn.Conv2d | nn.Linear]:
    """
    :param agent: a loaded agent
    :return: its convolutions and fully connected layers without the output layer
    :raises AgentError: it has none
    """
    layers = [layer for layer in chain_of(agent) if isinstance(layer, (nn.Conv2d, nn.Linear))][:-1]
    if not layers:
        raise AgentError(f"{agent.source} has no hidden layer whose activations could be shown: use a deeper student.")
    return layers


def _is_same(one: Any, other: Any) -> bool:
    if one.bias is None or other.bias is None:
        return one.bias is other.bias and th.equal(one.weight, other.weight)
    if one.weight.shape == other.weight.shape:
        return th.equal(one.weight, other.weight) and th.equal(one.bias, other.bias)
    # Tasks with shorter observations than others have fewer inputs, and the same units.
    return type(one) is type(other) and one.bias.shape == other.bias.shape and th.equal(one.bias, other.bias)


def choose_layer(agents: Sequence[Teacher], layer: str) -> int:
    """
    :param agents: agents, such as the tasks of one student
    :param layer: one of ``LAYERS``
    :return: the index of the layer among the hidden layers of each agent; for "last" -1
    :raises AgentError: an agent has no hidden layer, or for "shared": they have none in common
    """
    if layer != "shared":
        return 0 if layer == "first" else -1
    first, *others = [hidden_layers(agent) for agent in agents]
    n_layers = min(map(len, [first, *others]))
    shared = [all(_is_same(first[index], other[index]) for other in others) for index in range(n_layers)]
    if True not in shared:
        raise AgentError(
            f"{', '.join(agent.source for agent in agents)} have no layer in common: name tasks of one student, cut "
            "out with model.task(name).save(...), or choose --layers first last."
        )
    return n_layers - 1 - shared[::-1].index(True)


def name_layer(agent: Teacher, layer: str) -> str:
    """
    :param agent: an agent
    :param layer: one of ``LAYERS``
    :return: what the figure calls it
    """
    kind = "convolution" if isinstance(hidden_layers(agent)[0], nn.Conv2d) else "layer"
    return {"first": f"first {kind}", "shared": "last shared layer", "last": "last hidden layer"}[layer]


@th.no_grad()
def activations_of(agent: Teacher, observations: np.ndarray, indices: Sequence[int]) -> list[np.ndarray]:
    """
    :param agent: a loaded agent
    :param observations: raw observations ``(n, ...)``
    :param indices: indices of hidden layers
    :return: for each, the activations behind its activation function, flattened to ``(n, ...)``
    :raises AgentError: the agent has no hidden layer
    """
    chosen = [hidden_layers(agent)[index] for index in indices]
    found: dict[nn.Module, np.ndarray] = {}
    x = agent.normalize(th.as_tensor(observations, device=agent.device)).float()  # type: ignore[union-attr]
    before: nn.Module | None = None
    for layer in chain_of(agent):
        x = layer(x)
        if before in chosen:
            found[before] = x.flatten(1).cpu().numpy()
        before = layer
    return [found[layer] for layer in chosen]


def plot_tsne(
    games: Sequence[str],
    activations: Sequence[Sequence[np.ndarray]],
    titles: Sequence[str],
    seed: int = 0,
) -> Figure:
    """
    :param games: names of the games
    :param activations: for each game, the result of ``activations_of``
    :param titles: names of the layers
    :param seed: seed of t-SNE
    :return: the figure, with one panel for each layer
    :raises ValueError: the games' activations have different shapes
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    labels = np.concatenate([np.full(len(layers[0]), index) for index, layers in enumerate(activations)])
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    panels = figure.subplots(1, len(titles), squeeze=False)[0]
    for axes, layer, title in zip(panels, range(len(titles)), titles, strict=True):
        shapes = {layers[layer].shape[1] for layers in activations}
        if len(shapes) > 1:
            raise ValueError(f"The {title} has {sorted(shapes)} activations: the agents must have one trunk in common.")
        points = np.concatenate([layers[layer] for layers in activations])
        # As is common, reduce the dimension by PCA before t-SNE.
        points = PCA(min(50, *points.shape), random_state=seed).fit_transform(points)
        placed = TSNE(perplexity=min(_PERPLEXITY, (len(points) - 1) / 3), random_state=seed).fit_transform(points)
        for index, game in enumerate(games):
            axes.scatter(*placed[labels == index].T, s=3, **marker_style(index), label=short_name(game))
        axes.set_title(title, fontsize="medium")
        axes.set_xticks([])
        axes.set_yticks([])
    add_legend(figure, below=True, ncols=3, markerscale=3, handles=axes.get_legend_handles_labels()[0])
    return figure
