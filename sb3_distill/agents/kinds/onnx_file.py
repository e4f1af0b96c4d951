"""Opens an ONNX file that a stranger may have written, and says what goes into it and what comes out."""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sb3_distill.agents.files import AgentError
from sb3_distill.reading.files import read_file
from sb3_distill.reading.limits import MAX_WEIGHTS_BYTES

# ONNX's own operators, and its operators for classical learning, which converters name whether they use them or not
_DOMAINS = {"", "ai.onnx", "ai.onnx.ml"}
# Bits of the types of weights, by their numbers in the file format; others are indices and shapes
_WEIGHT_BITS = {1: 32, 2: 8, 3: 8, 10: 16, 11: 64, 16: 16, 21: 4, 22: 4}
_DTYPES = {
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


@dataclass(frozen=True)
class Port:
    """
    An input or an output.

    :param name: its name
    :param kind: its type, as onnxruntime says it
    :param shape: numbers, or names where the file leaves a size open
    """

    name: str
    kind: str
    shape: tuple[Any, ...]

    @property
    def dtype(self) -> Any:
        """NumPy's type; None of what observations and states are not."""
        return _DTYPES.get(self.kind)

    @property
    def is_number(self) -> bool:
        """Whether it holds numbers or booleans in one array: no texts, and no lists of arrays."""
        return re.fullmatch(r"tensor\((u?int(8|16|32|64)|float(16)?|double|bool)\)", self.kind) is not None

    @property
    def is_float(self) -> bool:
        """Whether it holds floating-point numbers."""
        return self.kind in ("tensor(float16)", "tensor(float)", "tensor(double)")


@dataclass(frozen=True)
class OnnxFile:
    """
    An open file.

    :param path: the file
    :param session: runs it
    :param inputs: what goes in
    :param outputs: what comes out
    :param sha256: hash of the file and of the weights beside it
    :param n_file_bytes: its size
    :param n_parameters: number of weights
    :param n_weight_bytes: their size
    :param model: its content
    """

    path: Path
    session: Any
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    sha256: str
    n_file_bytes: int
    n_parameters: int
    n_weight_bytes: int
    model: Any


def open_onnx(path: Path) -> OnnxFile:
    """
    :param path: an ONNX file
    :return: the open file, which runs on the CPU
    :raises AgentError: ONNX is not installed; the file is damaged, has operators of its own, or weights that are not in
        its folder
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise AgentError(f"{path} needs ONNX, which is not installed: pip install 'sb3-distill[export]'.") from error
    data = read_file(path, MAX_WEIGHTS_BYTES)
    digest = hashlib.sha256(data)
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:
        # Protobuf's own kinds of errors
        raise AgentError(f"{path} is no ONNX file, or a damaged one: export it again.") from error
    # Those that the file itself defines, out of ONNX's operators; the runtime has others of its own.
    functions = {(each.domain, each.name) for each in model.functions if not each.domain.startswith("com.microsoft")}
    n_parameters = n_bits = 0
    outside: set[str] = set()
    for message in _walk(model):
        if isinstance(message, onnx.NodeProto) and not (
            message.domain in _DOMAINS or (message.domain, message.op_type) in functions
        ):
            raise AgentError(
                f"{path} has the operator {message.op_type} of {message.domain}, which is none of ONNX's own: export "
                "it with standard operators alone."
            )
        if isinstance(message, onnx.TensorProto):
            outside |= {entry.value for entry in message.external_data if entry.key == "location"}
            if message.data_type in _WEIGHT_BITS:
                size = int(np.prod([max(n, 0) for n in message.dims], dtype=object))
                n_parameters, n_bits = n_parameters + size, n_bits + size * _WEIGHT_BITS[message.data_type]
    for name in sorted(outside):
        digest.update(read_file(_beside(path, name), MAX_WEIGHTS_BYTES))
    try:
        session = open_session(data, path)
    except Exception as error:
        # The runtime's own kinds of errors
        reason = " ".join(str(error).split())
        raise AgentError(f"{path} cannot be run by onnxruntime: {reason:.300}") from error
    inputs, outputs = (
        tuple(Port(each.name, each.type, tuple(each.shape)) for each in side)
        for side in (session.get_inputs(), session.get_outputs())
    )
    return OnnxFile(
        path, session, inputs, outputs, digest.hexdigest(), len(data), n_parameters, (n_bits + 7) // 8, model
    )


def open_session(data: bytes, path: Path) -> Any:
    """
    :param data: a model
    :param path: its file, which may have weights beside it
    :return: what runs it on the CPU
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # As the runner of our own exports: integers are unpacked once.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent.resolve()))
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _walk(message: Any) -> Iterator[Any]:
    """A message of a file and all messages in it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in [value] if hasattr(value, "ListFields") else value:
                yield from _walk(each)


def _beside(path: Path, name: str) -> Path:
    """A file with weights, in the folder of the model."""
    folder = path.parent.resolve()
    found = folder / name
    if os.path.isabs(name) or found.resolve() != found or folder not in found.parents:
        raise AgentError(
            f"{path} has weights in {name!r:.100}, outside of its own folder: export it anew, with all weights in one "
            "file or beside it."
        )
    if not found.is_file():
        raise AgentError(f"{path} has its weights in {name!r:.100}, which is not beside it: copy both files.")
    return found
