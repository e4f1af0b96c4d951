"""The feature maps of a policy's last convolution: their importance for its actions, and their place on the frame."""

from dataclasses import dataclass

import numpy as np
import torch as th
from torch import nn
from torch.nn import functional as F

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.chain import chain_of
from sb3_distill.agents.files import AgentError
from sb3_distill.networks.layers import ChannelsFirst, GlobalMaxPool


@dataclass(frozen=True)
class Geometry:
    """
    Where the cells of a feature map are on the observation, along one axis.

    :param first: centre of the first cell's receptive field, in pixels
    :param stride: pixels from one cell to the next
    :param n_cells: number of cells
    :param size: number of pixels of the observation along this axis
    """

    first: float
    stride: int
    n_cells: int
    size: int

    def cell_of(self, pixel: np.ndarray) -> np.ndarray:
        """
        :param pixel: positions, in pixels of the observation
        :return: indices of the cells with the nearest centres
        """
        return np.clip(np.round((pixel - self.first) / self.stride), 0, self.n_cells - 1).astype(int)


def split_at_maps(agent: Teacher) -> tuple[list[nn.Module], list[nn.Module]]:
    """
    :param agent: a loaded agent
    :return: its layers up to the last convolution and its activation function, and the remaining layers
    :raises AgentError: the agent has no convolutions
    """
    layers = chain_of(agent)
    convolutions = [index for index, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)]
    if not convolutions:
        raise AgentError(
            f"{agent.source} has no feature maps: its features extractor is {type(agent.acting_modules[0]).__name__}. "
            "Use an agent with convolutions."
        )
    behind = convolutions[-1] + 2
    return layers[:behind], layers[behind:]


def is_pooled(agent: Teacher) -> bool:
    """
    :param agent: a loaded agent
    :return: whether its feature maps are followed by a global max-pool, as in the paper's students whose maps localize
    """
    return isinstance(split_at_maps(agent)[1][0], GlobalMaxPool)


def geometry_of(agent: Teacher) -> tuple[Geometry, Geometry]:
    """
    :param agent: a loaded agent
    :return: where the cells of its feature maps are on the observation, vertically and horizontally
    """
    first, stride = 0.0, 1
    shape = agent.observation_space.shape
    assert shape is not None
    layers, _ = split_at_maps(agent)
    sizes = shape[:2] if any(isinstance(layer, ChannelsFirst) for layer in layers) else shape[1:]
    n_cells = list(sizes)
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            first += stride * (layer.kernel_size[0] - 1) / 2
            stride *= layer.stride[0]
            n_cells = [(n - layer.kernel_size[0]) // layer.stride[0] + 1 for n in n_cells]
    return Geometry(first, stride, n_cells[0], sizes[0]), Geometry(first, stride, n_cells[1], sizes[1])


@th.no_grad()
def feature_maps(agent: Teacher, observations: np.ndarray, batch_size: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """
    :param agent: a loaded agent
    :param observations: raw observations ``(n, ...)``
    :param batch_size: number of observations per forward pass
    :return: the maps before pooling ``(n, n_maps, height, width)``, and each map's contribution to the output of the
        greedy action: activation times gradient, summed over the map, ``(n, n_maps)``
    :raises AgentError: the agent has no convolutions
    """
    before, behind = split_at_maps(agent)
    all_maps, all_contributions = [], []
    for start in range(0, len(observations), batch_size):
        obs = th.as_tensor(observations[start : start + batch_size], device=agent.device)
        batch = agent.normalize(obs).float()  # type: ignore[union-attr]
        maps = nn.Sequential(*before)(batch).requires_grad_(True)
        with th.enable_grad():
            outputs = nn.Sequential(*behind)(maps)
            (gradient,) = th.autograd.grad(outputs.max(dim=1).values.sum(), maps)
        all_maps.append(maps.detach().cpu().numpy())
        all_contributions.append((maps * gradient).sum(dim=(2, 3)).cpu().numpy())
    return np.concatenate(all_maps), np.concatenate(all_contributions)


def rank_maps(contributions: np.ndarray) -> np.ndarray:
    """
    Rank maps by the mean absolute value of their contributions to the output of the greedy action.

    :param contributions: ``(n, n_maps)``, see ``feature_maps``
    :return: indices of the maps, the most important one first
    """
    return np.argsort(-np.abs(contributions).mean(axis=0), kind="stable")


def normalize_maps(maps: np.ndarray) -> np.ndarray:
    """
    :param maps: ``(n, n_maps, height, width)``, not negative
    :return: each map in [0, 1]: divided by the 99th percentile of its maxima over the episode, and clipped. The maximum
        would be too large: some maps have extreme activations for the black frames that pad the first stacks.
    """
    peaks = np.quantile(maps.max(axis=(2, 3)), 0.99, axis=0)
    return (maps / np.maximum(peaks, 1e-8)[None, :, None, None]).clip(0, 1)


def place_on_frame(maps: np.ndarray, geometry: tuple[Geometry, Geometry], height: int, width: int) -> np.ndarray:
    """
    Upsample maps bilinearly to the size of a frame. Every cell is placed at the centre of its receptive field.

    :param maps: maps ``(n, height, width)``, in cells
    :param geometry: where the cells are on the observation
    :param height: height of the frame in pixels
    :param width: width of the frame in pixels
    :return: maps ``(n, height, width)``, in pixels
    """
    axes = []
    for side, n_pixels in zip(geometry, (height, width), strict=True):
        pixels = (np.arange(n_pixels) + 0.5) * side.size / n_pixels - 0.5
        cells = (pixels - side.first) / side.stride
        axes.append(2 * cells / max(side.n_cells - 1, 1) - 1)
    rows, columns = np.meshgrid(*axes, indexing="ij")
    grid = th.as_tensor(np.stack([columns, rows], axis=-1)[None], dtype=th.float32)
    placed = F.grid_sample(
        th.as_tensor(maps, dtype=th.float32)[None], grid, mode="bilinear", padding_mode="border", align_corners=True
    )
    return placed[0].numpy()
