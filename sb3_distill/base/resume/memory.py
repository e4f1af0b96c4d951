"""Runs with a replay buffer that can be stopped at any moment."""

from pathlib import Path
from typing import Any, ClassVar

from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.save_util import save_to_pkl

from sb3_distill.base.resume.needs import announce_replay
from sb3_distill.base.resume.resuming import ResumableMixin, with_suffix
from sb3_distill.buffers.state import buffer_state, capacity, restore_buffer, step_bytes
from sb3_distill.common.files import whole_file
from sb3_distill.envs.inspection import frame_stack_of


class ResumableOffPolicyMixin(ResumableMixin, OffPolicyAlgorithm):
    """``ResumableMixin`` of off-policy algorithms: the state of a run holds its replay buffer, too."""

    run_attributes: ClassVar[tuple[str, ...]] = (*ResumableMixin.run_attributes, "_episode_num")
    _memory_size = "buffer_size"

    def save_replay_buffer(self, path: Any) -> None:
        """
        Save the replay buffer as a pickle file, which appears whole or not at all.

        :param path: path to the file where the replay buffer should be saved
        :raises OSError: the file cannot be written
        """
        if not isinstance(path, (str, Path)):
            super().save_replay_buffer(path)
            return
        with whole_file(with_suffix(Path(path), ".pkl")) as file:
            save_to_pkl(file, self.replay_buffer, self.verbose)  # type: ignore[arg-type]

    def _memory_state(self) -> dict[str, Any]:
        assert self.replay_buffer is not None
        return buffer_state(self.replay_buffer)

    def _restore_memory(self, state: Any) -> None:
        assert self.replay_buffer is not None
        restore_buffer(self.replay_buffer, state)

    @property
    def _n_kept(self) -> int:
        """Number of steps in the replay buffer when the run is over."""
        buffer: Any = self.replay_buffer
        to_come = max(self._total_timesteps - self.num_timesteps, 0)
        return min(capacity(buffer), buffer.size() * self.n_envs + to_come)

    def _announce_memory(self) -> None:
        announce_replay(self, self._n_kept)

    def _state_bytes(self) -> int:
        assert self.env is not None and self.replay_buffer is not None
        return self._n_kept * step_bytes(self.replay_buffer, frame_stack_of(self.env), in_memory=False)
