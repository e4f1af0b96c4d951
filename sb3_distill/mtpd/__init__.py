from sb3_distill.mtpd.mtdqn import MultiTaskDQN
from sb3_distill.mtpd.mtpd import MultiTaskDistillation
from sb3_distill.networks.multi_task import (
    MultiTaskCnnPolicy,
    MultiTaskGridCnnPolicy,
    MultiTaskLargeCnnPolicy,
    MultiTaskMlpPolicy,
    MultiTaskMultiInputPolicy,
)

__all__ = [
    "MultiTaskCnnPolicy",
    "MultiTaskDQN",
    "MultiTaskDistillation",
    "MultiTaskGridCnnPolicy",
    "MultiTaskLargeCnnPolicy",
    "MultiTaskMlpPolicy",
    "MultiTaskMultiInputPolicy",
]
