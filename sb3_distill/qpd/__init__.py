from sb3_distill.qpd.post_training import quantize_after_training
from sb3_distill.qpd.qpd import QPD

__all__ = ["QPD", "quantize_after_training"]
