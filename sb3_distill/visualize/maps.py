"""Localization maps: feature maps before the global max-pool, drawn over the frames of the game."""

import errno
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw

from sb3_distill.agents.agent import Teacher
from sb3_distill.common.files import whole_file
from sb3_distill.common.log import progress_bar
from sb3_distill.common.utils import counted
from sb3_distill.visualize.activations import feature_maps, geometry_of, normalize_maps, place_on_frame, rank_maps
from sb3_distill.visualize.episodes import Episode

# Perceptually uniform, and readable for colour-blind people
_COLOURS = colormaps["inferno"]
_CAPTION_HEIGHT = 14
# Pictures per second of a video, and pictures in a PNG
_FPS, _N_ROWS = 15, 4
FORMATS = (".png", ".gif", ".mp4")


def overlay(frame: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """
    :param frame: RGB bytes ``(height, width, 3)``
    :param heat: a map ``(height, width)`` with values in [0, 1]
    :return: the frame in grey, coloured where the map is active
    """
    grey = frame.mean(axis=2, keepdims=True).repeat(3, axis=2)
    colours = 255 * _COLOURS(heat)[..., :3]
    # The opacity of the map grows with its activation, from 0 to two thirds, so that the frame stays visible.
    weight = 0.67 * np.sqrt(heat)[..., None]
    return ((1 - weight) * grey + weight * colours).astype(np.uint8)


def mark_peak(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """
    :param picture: RGB bytes ``(height, width, 3)``
    :param heat: its map ``(height, width)``
    :return: the picture with a ring around the map's peak, which is all that a global max-pool keeps of it; none where
        the map is silent
    """
    if heat.max() <= 0:
        return picture
    image = Image.fromarray(picture)
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    for radius, colour in ((6, "black"), (5, "cyan")):
        box = (int(column) - radius, int(row) - radius, int(column) + radius, int(row) + radius)
        ImageDraw.Draw(image).ellipse(box, outline=colour, width=1)
    return np.asarray(image)


def _colour_bar(height: int) -> np.ndarray:
    """From silent (0) to the largest activation of a map in the episode (1)."""
    bar = 255 * _COLOURS(np.linspace(1, 0, height))[:, None, :3]
    panel = np.full((height, 24, 3), 255, np.uint8)
    panel[:, 2:12] = bar
    image = Image.fromarray(panel)
    for text, top in (("1", 0), ("0", height - 11)):
        ImageDraw.Draw(image).text((15, top), text, fill="black")
    return np.asarray(image)


def _caption(panel: np.ndarray, text: str) -> np.ndarray:
    image = Image.new("RGB", (panel.shape[1], panel.shape[0] + _CAPTION_HEIGHT), "white")
    image.paste(Image.fromarray(panel), (0, _CAPTION_HEIGHT))
    ImageDraw.Draw(image).text((3, 1), text, fill="black")
    return np.asarray(image)


class Pictures(Sequence[np.ndarray]):
    """
    Pictures that are drawn only on access, because all pictures of a long episode would not fit into memory.

    :param draw: function that draws the RGB picture of a step
    :param n_steps: number of steps
    """

    def __init__(self, draw: Callable[[int], np.ndarray], n_steps: int) -> None:
        self.draw = draw
        self.n_steps = n_steps

    def __len__(self) -> int:
        return self.n_steps

    def __getitem__(self, step: int) -> np.ndarray:  # type: ignore[override]
        if not 0 <= step < self.n_steps:
            raise IndexError(f"There are {self.n_steps} pictures, none with the index {step}.")
        return self.draw(step)


def draw_maps(agent: Teacher, episode: Episode, n_maps: int = 4) -> tuple[Pictures, np.ndarray]:
    """
    Draw one picture per step: the frame (above it the step, the action and the score), the most important maps (see
    ``rank_maps``) with a ring around their peak, the maximum over all maps, and a colour bar.

    :param agent: a student with convolutions
    :param episode: an episode that it played
    :param n_maps: number of maps to show
    :return: RGB pictures, and the indices of the chosen maps
    :raises AgentError: the agent has no convolutions
    :raises ValueError: the agent has fewer maps
    """
    maps, contributions = feature_maps(agent, np.stack(episode.observations))
    if not 1 <= n_maps <= maps.shape[1]:
        raise ValueError(f"n_maps must be between 1 and the {maps.shape[1]} maps of the agent, not {n_maps}.")
    chosen = rank_maps(contributions)[:n_maps]
    normalized = normalize_maps(maps)
    layers = np.concatenate([normalized[:, chosen], normalized.max(axis=1, keepdims=True)], axis=1)
    captions = [*(f"map {index}" for index in chosen), "maximum", ""]
    geometry = geometry_of(agent)

    def moment(step: int) -> str:
        action = episode.actions[step]
        name = episode.action_names[action] if episode.action_names else f"action {action}"
        return f"{step}: {name}, score {episode.scores[step]:g}"

    def draw(step: int) -> np.ndarray:
        frame = episode.frames[step]
        placed = place_on_frame(layers[step], geometry, *frame.shape[:2]).clip(0, 1)
        marked = [mark_peak(overlay(frame, heat), heat) for heat in placed]
        captioned = [
            _caption(panel, text)
            for panel, text in zip([frame, *marked, _colour_bar(len(frame))], [moment(step), *captions], strict=True)
        ]
        return np.concatenate([np.pad(panel, ((0, 0), (0, 4), (0, 0))) for panel in captioned], axis=1)

    return Pictures(draw, len(episode.frames)), chosen


def check_format(path: Path) -> None:
    """
    :param path: a file to write
    :raises ValueError: the file's extension is not one of ``FORMATS``
    """
    if path.suffix not in FORMATS:
        raise ValueError(f"{path}: maps are written as one of {', '.join(FORMATS)}.")


def write_pictures(pictures: Sequence[np.ndarray], path: Path) -> None:
    """
    :param pictures: RGB pictures of one size
    :param path: file to write: ``.png`` (a few evenly spaced pictures, one below the other), ``.gif`` or ``.mp4``
    :raises ValueError: the file's extension is not one of ``FORMATS``
    :raises OSError: it cannot be written
    """
    check_format(path)
    n_drawn = min(_N_ROWS, len(pictures)) if path.suffix == ".png" else len(pictures)
    with whole_file(path) as file, progress_bar(path.name, n_drawn) as tell:
        pictures = _Counted(pictures, tell)
        if path.suffix == ".png":
            rows = np.linspace(0, len(pictures) - 1, n_drawn).round().astype(int)
            Image.fromarray(np.concatenate([pictures[row] for row in rows])).save(file, "PNG", optimize=True)
        elif path.suffix == ".gif":
            images = (Image.fromarray(picture).quantize(64, method=Image.Quantize.FASTOCTREE) for picture in pictures)
            animation: dict[str, Any] = {"save_all": True, "append_images": images, "duration": 1000 // _FPS, "loop": 0}
            next(images).save(file, "GIF", **animation, optimize=True)
        else:
            _write_mp4(pictures, file.name)


class _Counted(Pictures):
    """
    Pictures that say how many of them were drawn.

    :param pictures: the pictures
    :param tell: is told the number
    """

    def __init__(self, pictures: Sequence[np.ndarray], tell: Callable[[float], None]) -> None:
        super().__init__(pictures.__getitem__, len(pictures))
        self.tell, self.n_drawn = tell, 0

    def __getitem__(self, step: int) -> np.ndarray:  # type: ignore[override]
        picture = super().__getitem__(step)
        self.n_drawn += 1
        self.tell(self.n_drawn)
        return picture


def _write_mp4(pictures: Sequence[np.ndarray], path: str) -> None:
    # This package contains ffmpeg, so that users need not install it.
    import imageio_ffmpeg

    height, width = (side - side % 2 for side in pictures[0].shape[:2])
    options: dict[str, Any] = {
        "macro_block_size": 2,
        "quality": 7,
        "ffmpeg_log_level": "error",
        "output_params": ["-f", "mp4"],
    }
    writer = imageio_ffmpeg.write_frames(path, (width, height), fps=_FPS, **options)
    writer.send(None)
    for picture in pictures:
        writer.send(np.ascontiguousarray(picture[:height, :width]))
    writer.close()
    # ffmpeg does not say that it could not write the end.
    try:
        n_frames, _ = imageio_ffmpeg.count_frames_and_secs(path)
    except RuntimeError as error:
        raise OSError(errno.EIO, "ffmpeg could not write it") from error
    if n_frames != len(pictures):
        raise OSError(errno.EIO, f"ffmpeg wrote {n_frames} of {counted(len(pictures), 'picture')}")
