from sb3_distill.qpd.qpd import QPD

__all__ = ["QPD"]
