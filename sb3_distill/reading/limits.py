"""
How much of a file is read that somebody else wrote. A few bytes can ask for all memory of a machine; the limits are
far above what any agent needs, and what is above them is refused by a sentence that names the number.
"""

MIB = 2**20
# A zip of SB3: weights, the optimizer's state (twice as large), and attributes
MAX_ZIP_BYTES = 4096 * MIB
MAX_WEIGHTS_BYTES = 1024 * MIB
# By how much a large member of a zip may be compressed: SB3 compresses nothing, and weights hardly can be
MAX_EXPANSION = 100
# JSON, pickles of statistics, arrays of evaluations
MAX_DATA_BYTES = 64 * MIB
# Start states of Atari games, curves of runs
MAX_ARRAY_BYTES = 512 * MIB
# Files that people write, or that say how a run was started: pure Python reads them
MAX_YAML_BYTES = MIB // 4
# Levels of lists and mappings within each other
MAX_DEPTH = 50
# Values of a YAML file with its aliases written out
MAX_YAML_VALUES = 50_000
MAX_PICKLE_OPCODES = 500_000
MAX_TENSORS = 10_000
# Layers of one part of a network
MAX_LAYERS = 100
# Numbers of an observation or an action; the largest n of a discrete space
MAX_SPACE_ELEMENTS = 2**22
# Axes of an array
MAX_DIMENSIONS = 8
# Characters of a space's description
MAX_SPACE_TEXT = 2**16


class ReadError(ValueError):
    """The content of a file cannot be read, or is more than is read; the message says why."""


def check_size(what: str, size: int, limit: int, unit: str = "bytes") -> None:
    """
    :param what: what is as large as this, for the message
    :param size: its size
    :param limit: the largest size that is read
    :param unit: of both numbers
    :raises ReadError: it is larger
    """
    if size > limit:
        raise ReadError(f"{what} has {size:,} {unit}, more than the {limit:,} that are read")
