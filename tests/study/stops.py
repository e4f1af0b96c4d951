"""A callback that ends a cell as a power cut would, once."""

from stable_baselines3.common.callbacks import BaseCallback


class StopOnce(BaseCallback):
    """The run gets no chance to save anything."""

    calls_left = -1

    def _on_step(self) -> bool:
        StopOnce.calls_left -= 1
        if StopOnce.calls_left == 0:
            raise SystemError("stopped")
        return True
