from stable_baselines3.dqn.policies import CnnPolicy, MlpPolicy, MultiInputPolicy

from sb3_distill.networks.dqn_policies import GridCnnPolicy
from sb3_distill.rtpd.rtpd import RealTimeDistillDQN

__all__ = ["CnnPolicy", "GridCnnPolicy", "MlpPolicy", "MultiInputPolicy", "RealTimeDistillDQN"]
