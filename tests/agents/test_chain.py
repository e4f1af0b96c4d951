"""The layers that an agent's observations go through."""

from gymnasium import spaces

from sb3_distill import load_teacher
from sb3_distill.agents.chain import count_macs
from sb3_distill.base.students import student_model
from tests.helpers import FRAMES


def test_macs_of_net3():
    model = student_model("Net3Policy", {}, FRAMES, spaces.Discrete(6), device="cpu")
    # Positions x weights of the three convolutions, then the two fully connected layers
    convolutions = 400 * 16 * 4 * 64 + 81 * 16 * 16 * 16 + 49 * 16 * 16 * 9
    assert count_macs(load_teacher(model)) == convolutions + 784 * 64 + 64 * 6 == 2_133_632
