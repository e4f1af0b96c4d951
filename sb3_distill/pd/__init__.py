from sb3_distill.networks.policies import (
    CnnPolicy,
    MaxPoolCnnPolicy,
    MlpPolicy,
    MultiInputPolicy,
    Net1Policy,
    Net2Policy,
    Net3Policy,
    Net4Policy,
    Net5Policy,
)
from sb3_distill.pd.pd import PolicyDistillation

__all__ = [
    "CnnPolicy",
    "MaxPoolCnnPolicy",
    "MlpPolicy",
    "MultiInputPolicy",
    "Net1Policy",
    "Net2Policy",
    "Net3Policy",
    "Net4Policy",
    "Net5Policy",
    "PolicyDistillation",
]
