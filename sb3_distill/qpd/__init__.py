from sb3_distill.export.post_training import quantize_agent
from sb3_distill.qpd.qpd import QPD

__all__ = ["QPD", "quantize_agent"]
