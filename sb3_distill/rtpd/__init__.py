from sb3_distill.rtpd.policies import CnnPolicy, GridCnnPolicy, MlpPolicy, MultiInputPolicy
from sb3_distill.rtpd.rtpd import RealTimeDistillDQN

__all__ = ["CnnPolicy", "GridCnnPolicy", "MlpPolicy", "MultiInputPolicy", "RealTimeDistillDQN"]
