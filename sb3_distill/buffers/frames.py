"""Storage of images: planes that consecutive images share are stored once."""

import numpy as np


def planes_of(image: np.ndarray) -> list[bytes]:
    """
    :param image: ``(n_planes, height, width)`` of type uint8
    :return: its planes
    """
    data, size = image.tobytes(), image.shape[1] * image.shape[2]
    return [data[start : start + size] for start in range(0, len(data), size)]


class FrameStore:
    """
    Is read and written as an array ``(n_rows, n_envs, n_planes, height, width)`` of images, row by row.

    A plane that the previous image of the same environment has, too, is stored once. Stacks of frames share all frames
    but the newest, whatever stacked them and whatever the number of planes of a frame, so that only one frame is stored
    per step. Images that share nothing are stored whole.

    :param n_rows: number of rows of the ring buffer
    :param n_envs: number of images per row
    :param shape: shape of one image
    :raises ValueError: images of another shape are written
    """

    def __init__(self, n_rows: int, n_envs: int, shape: tuple[int, ...]) -> None:
        self.shape = (n_rows, n_envs, *shape)
        # Each image is a tuple of its planes. Shared planes are one object, which Python frees with its last image.
        self.rows: list[tuple[tuple[bytes, ...], ...]] = [()] * n_rows
        # The image of each environment that was written last. Another store may have the same list: then the two also
        # share the planes of their images.
        self.latest: list[tuple[bytes, ...]] = [()] * n_envs
        # Pads a stack after a reset
        self._black = bytes(shape[1] * shape[2])

    def __setitem__(self, row: int, images: np.ndarray) -> None:
        if images.shape != self.shape[1:]:
            raise ValueError(f"Images of shape {self.shape[1:]} are stored here, not {images.shape}.")
        for env, image in enumerate(images):
            known = {plane: plane for plane in (self._black, *self.latest[env])}
            self.latest[env] = tuple(known.setdefault(plane, plane) for plane in planes_of(image))
        self.rows[row] = tuple(self.latest)

    def __getitem__(self, index: tuple[np.ndarray, ...]) -> np.ndarray:
        rows, envs = index[0].tolist(), index[1].tolist()
        planes = [plane for row, env in zip(rows, envs, strict=True) for plane in self.rows[row][env]]
        # A bytearray, because tensors need memory that can be written.
        return np.frombuffer(bytearray().join(planes), dtype=np.uint8).reshape(len(rows), *self.shape[2:])
