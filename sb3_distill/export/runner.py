"""Runs an exported policy; needs numpy and onnxruntime alone, so that it can be copied to a device.

``python runner.py policy.onnx observation.npy`` prints the actions.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime


class PolicyRunner:
    """
    An exported policy.

    :param model: path of the ONNX file, or its content
    :param n_threads: threads of one inference
    :param unpack: unpack integer weights once, when the file is loaded, and multiply in float32, to the same results:
        two to five times as fast on the processors measured. False multiplies integers where the runtime can.
    """

    def __init__(self, model: "str | Path | bytes", n_threads: int = 1, unpack: bool = True) -> None:
        source = model if isinstance(model, bytes) else str(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = n_threads
        options.inter_op_num_threads = 1
        if unpack:
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        self.session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        self.dtype = {"tensor(uint8)": np.uint8, "tensor(bool)": np.bool_}.get(
            self.session.get_inputs()[0].type, np.float32
        )
        self.n_dimensions = len(self.session.get_inputs()[0].shape)

    def predict(self, observation: np.ndarray) -> "tuple[np.ndarray, np.ndarray]":
        """
        Get the actions.

        :param observation: a raw observation, or a batch of them
        :return: the actions, in the shape that the environment takes, and the logits, of the same batch
        """
        batch: np.ndarray = np.asarray(observation, dtype=self.dtype)
        single = batch.ndim == self.n_dimensions - 1
        action, logits = self.session.run(["action", "logits"], {"observation": batch[None] if single else batch})
        return (action[0], logits[0]) if single else (action, logits)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python runner.py policy.onnx observation.npy")
    print(PolicyRunner(sys.argv[1]).predict(np.load(sys.argv[2], allow_pickle=False))[0])
