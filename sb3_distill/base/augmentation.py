"""Augmentation of the students' observations: random shifts of images, small steps along the loss's gradient."""

import math
import numbers
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space

from sb3_distill.base.distillation import DistillationAlgorithm
from sb3_distill.common.finite import has_bounds
from sb3_distill.common.utils import setting, unknown_choice

NONE, SHIFT, ADVERSARIAL = "none", "shift", "adversarial"
# By augmentation: the strength where the user names none
USUAL_STRENGTH = {NONE: 0.0, SHIFT: 2, ADVERSARIAL: 0.01}


def shifted(images: th.Tensor, offsets: np.ndarray) -> th.Tensor:
    """
    :param images: images ``(batch, channels, height, width)``
    :param offsets: by how many pixels each is moved down, and to the right ``(2, batch)``
    :return: the moved images, with their borders repeated
    """
    height, width = images.shape[-2:]
    down, right = th.as_tensor(offsets, device=images.device)[..., None]
    rows = (th.arange(height, device=images.device) - down).clamp(0, height - 1)
    columns = (th.arange(width, device=images.device) - right).clamp(0, width - 1)
    batch, channels = (th.arange(n, device=images.device) for n in images.shape[:2])
    return images[batch[:, None, None, None], channels[:, None, None], rows[:, None, :, None], columns[:, None, None]]


def adversarial(
    loss: Callable[[Any], th.Tensor],
    observations: Any,
    boxes: Mapping[str, spaces.Box | None],
    strength: float,
    n_steps: int = 1,
) -> Any:
    """
    Move observations to where the loss is larger: one step along the sign of its gradient (Goodfellow et al. 2015,
    arXiv 1412.6572), or several, each projected onto what may be changed (Madry et al. 2018, arXiv 1706.06083).

    :param loss: from observations to one loss for each
    :param observations: a batch of them, or a dictionary of batches
    :param boxes: the spaces of those that are moved, by key ("": there are no keys); None: one without bounds
    :param strength: by how much an entry changes at most, as a share of its range: the bounds of the space, and where
        it has none the range in the batch, widened by half of it at both ends
    :param n_steps: number of steps
    :return: the moved observations, as floats, within the bounds of their spaces
    """
    parts = dict(observations) if isinstance(observations, dict) else {"": observations}
    limits, step = {}, {}
    for key, box in boxes.items():
        parts[key] = parts[key].float()
        limits[key], reach = _limits(parts[key], box, strength)
        # Several steps reach the limit, and have some left to find the way.
        step[key] = reach / max(n_steps / 2, 1.0)
    for _ in range(n_steps):
        leaves = {key: parts[key].detach().requires_grad_() for key in boxes}
        moved = {**parts, **leaves}
        losses = loss(moved if isinstance(observations, dict) else moved[""])
        gradients = th.autograd.grad(losses.sum(), list(leaves.values()), materialize_grads=True)
        for (key, leaf), gradient in zip(leaves.items(), gradients, strict=True):
            parts[key] = (leaf.detach() + step[key] * gradient.sign()).clamp(*limits[key])
    return parts if isinstance(observations, dict) else parts[""]


def _limits(part: th.Tensor, box: spaces.Box | None, strength: float) -> tuple[tuple[th.Tensor, th.Tensor], th.Tensor]:
    """The lowest and highest value to which each number can be moved, and by how much each entry can change."""
    reach = 2 * strength * (part.amax(dim=0) - part.amin(dim=0))
    if box is None:
        return (part - reach, part + reach), reach
    low, high = (th.as_tensor(bound, device=part.device, dtype=part.dtype) for bound in (box.low, box.high))
    known = th.as_tensor(has_bounds(box), device=part.device)
    reach = th.where(known, strength * (high - low), reach)
    # What lies outside of its space stays where it is.
    lowest = th.maximum(part - reach, th.minimum(low, part))
    return (lowest, th.minimum(part + reach, th.maximum(high, part))), reach


class AugmentingMixin(DistillationAlgorithm):
    """
    Mixin of algorithms whose students can learn from observations that are a little other than those that the teacher
    saw. Its answers stay the same.
    """

    augmentation: str = NONE
    augmentation_strength: float | None = None
    augmentation_steps: int = 1

    @property
    def _strength(self) -> float:
        usual = USUAL_STRENGTH[self.augmentation]
        return usual if self.augmentation_strength is None else self.augmentation_strength

    def _setup_model(self) -> None:
        self._check_spaces()
        self._check_augmentation()
        super()._setup_model()

    def _check_augmentation(self) -> None:
        if not isinstance(self.augmentation, str) or self.augmentation not in USUAL_STRENGTH:
            raise ValueError(unknown_choice("augmentation", self.augmentation, USUAL_STRENGTH))
        strength, n_steps = self._strength, self.augmentation_steps
        if isinstance(strength, bool) or not isinstance(strength, numbers.Real) or not 0 <= strength < math.inf:
            raise ValueError(f"augmentation_strength must be a number of at least 0, or None, not {strength!r}.")
        if isinstance(n_steps, bool) or not isinstance(n_steps, numbers.Integral) or n_steps < 1:
            raise ValueError(f"augmentation_steps must be a whole number of at least 1, not {n_steps!r}.")
        if self.augmentation == NONE and self.augmentation_strength is not None:
            self._warn_of_no_effect("augmentation_strength", SHIFT, ADVERSARIAL)
        if self.augmentation != ADVERSARIAL and n_steps > 1:
            self._warn_of_no_effect("augmentation_steps", ADVERSARIAL)
        if self.augmentation == SHIFT:
            sizes = [size for box in self._images().values() for size in box.shape[-2:]]
            self._refuse_others(sizes, "images as bytes, channels first")
            if strength != int(strength) or strength >= min(sizes):
                raise ValueError(
                    f"augmentation_strength={strength:g} must be a whole number of pixels below the size of the images "
                    f"({min(sizes)}), since augmentation='shift' moves them."
                )
        elif self.augmentation == ADVERSARIAL:
            self._refuse_others(list(self._boxes()), "numbers on a scale (Box)")
            if strength > 1:
                raise ValueError(
                    f"augmentation_strength={strength:g} is a share of an observation's range with "
                    "augmentation='adversarial', and must be between 0 and 1; 0.01 is one per cent."
                )

    def _warn_of_no_effect(self, argument: str, *needed: str) -> None:
        warnings.warn(
            f"{argument}={getattr(self, argument)!r} has no effect with augmentation={self.augmentation!r}: leave it "
            f"out, or pass {' or '.join(setting('augmentation', repr(name)) for name in needed)} with it."
        )

    def _refuse_others(self, found: list[Any], needed: str) -> None:
        if not found:
            raise ValueError(
                f"augmentation={self.augmentation!r} needs observations with {needed}, and the student's are "
                f"{self.observation_space}: pass {setting('augmentation', repr(NONE))}."
            )

    def _boxes(self) -> dict[str, spaces.Box]:
        """The parts of the student's observations that are numbers on a scale, by key."""
        space = self.observation_space
        parts = space.spaces if isinstance(space, spaces.Dict) else {"": space}
        return {key: part for key, part in parts.items() if isinstance(part, spaces.Box)}

    def _images(self) -> dict[str, spaces.Box]:
        return {key: box for key, box in self._boxes().items() if is_image_space(box, check_channels=False)}

    def _is_normalized(self, key: str) -> bool:
        """Whether VecNormalize changes this part, which then has no bounds."""
        statistics = self._vec_normalize_env
        if statistics is None or not statistics.norm_obs:
            return False
        return statistics.norm_obs_keys is None or (key or self.student_keys) in statistics.norm_obs_keys

    def _sample(self, batch_size: int) -> Any:
        samples = super()._sample(batch_size)
        if self.augmentation != SHIFT or self._strength == 0:
            return samples
        n_pixels = int(self._strength)
        # From the generator that has chosen the minibatch, which a run that goes on finds as it was
        offsets = np.random.randint(-n_pixels, n_pixels + 1, size=(2, batch_size))
        obs = samples.observations
        if not isinstance(obs, dict):
            return samples._replace(observations=shifted(obs, offsets))
        moved = {key: shifted(obs[key], offsets) for key in self._images()}
        return samples._replace(observations={**obs, **moved})

    def _update(self, samples: Any) -> dict[str, th.Tensor]:
        if self.augmentation == ADVERSARIAL and self._strength > 0:
            boxes = {key: None if self._is_normalized(key) else box for key, box in self._boxes().items()}

            def loss(obs: Any) -> th.Tensor:
                return self.student_loss(self.student, samples._replace(observations=obs))[0]

            moved = adversarial(loss, samples.observations, boxes, self._strength, self.augmentation_steps)
            return super()._update(samples._replace(observations=moved))
        return super()._update(samples)
