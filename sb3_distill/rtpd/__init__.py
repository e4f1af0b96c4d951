from stable_baselines3.dqn.policies import CnnPolicy, MlpPolicy, MultiInputPolicy

from sb3_distill.networks.dqn_policies import DQNGridCnnPolicy
from sb3_distill.rtpd.rtpd import RealTimeDistillDQN

__all__ = ["CnnPolicy", "DQNGridCnnPolicy", "MlpPolicy", "MultiInputPolicy", "RealTimeDistillDQN"]
