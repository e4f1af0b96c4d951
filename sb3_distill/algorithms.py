"""The algorithms, by the keys that the Zoo's ``--algo`` takes."""

import pkgutil
from typing import Any

# Key of the Zoo's --algo -> class
ALGORITHMS = {
    "pd": "sb3_distill.pd:PolicyDistillation",
    "rtpd": "sb3_distill.rtpd:RealTimeDistillDQN",
    "qpd": "sb3_distill.qpd:QPD",
    "mtpd": "sb3_distill.mtpd:MultiTaskDistillation",
    "mtdqn": "sb3_distill.mtpd:MultiTaskDQN",
}


def resolve(key: str) -> Any:
    """
    :param key: key of an algorithm in the Zoo
    :return: its class
    """
    return pkgutil.resolve_name(ALGORITHMS[key])
