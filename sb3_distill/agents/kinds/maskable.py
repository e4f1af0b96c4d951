"""MaskablePPO, an actor-critic agent that acts within masks of the actions that are allowed."""

from sb3_distill.agents.agent import ActorCriticTeacher


class MaskableTeacher(ActorCriticTeacher):
    """
    An actor-critic agent that was trained with action masks. ``answer`` knows no masks: who plays asks the environment
    for them (``action_masks_of``), and applies them to the answers (``Answers.masked``).
    """

    kind = "actor-critic with action masks"
    needs_masks = True
