from sb3_distill.ppd.ppd import ProximalPolicyDistillation

__all__ = ["ProximalPolicyDistillation"]
