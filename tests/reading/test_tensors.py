"""State dicts, read by our own reader: as PyTorch reads them, or refused by name."""

import io
import zipfile

import pytest
import torch as th

from sb3_distill.reading.limits import ReadError
from sb3_distill.reading.tensors import read_state_dict


def saved(**weights) -> bytes:
    buffer = io.BytesIO()
    th.save(weights, buffer)
    return buffer.getvalue()


def rewritten(content: bytes, member: str, change) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(buffer, "w") as other:
        for name in archive.namelist():
            data = archive.read(name)
            other.writestr(name, change(data) if name.endswith(member) else data)
    return buffer.getvalue()


def test_tensors_are_those_that_were_saved():
    generator = th.Generator().manual_seed(0)
    matrix = th.randn(3, 4, generator=generator)
    weights = {
        "matrix": matrix,
        "transposed": matrix.t(),
        "row": matrix[1],
        "number": th.tensor(7),
        "empty": th.empty(0, 3),
        **{str(dtype): th.ones(2).to(dtype) for dtype in (th.float64, th.float16, th.bfloat16, th.int8, th.bool)},
        "parameter": th.nn.Parameter(matrix),
    }
    found = read_state_dict(saved(**weights))
    assert found.keys() == weights.keys()
    for name, tensor in weights.items():
        assert th.equal(found[name], tensor) and found[name].dtype == tensor.dtype
        assert found[name].stride() == tensor.stride()


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (th.zeros(2, dtype=th.complex64), "the weights w are of the type complexfloat"),
        (th.zeros(2).to_sparse(), "the weights w are sparse"),
        (th.zeros(2, device="meta"), r"the weights w are without content \(meta\)"),
        (th.quantize_per_tensor(th.zeros(2), 1.0, 0, th.qint8), "the weights w are quantized"),
        # A view that shows one number 10^12 times
        (th.zeros(1).expand(10**12), r"the weights w have the shape \(1000000000000,\), but only 1 numbers"),
        ([1.0], "no state dict"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_other_tensors_are_refused_by_name(tensor, message):
    with pytest.raises(ReadError, match=message):
        read_state_dict(saved(w=tensor))


def test_sizes_are_those_of_the_bytes():
    """PyTorch believes the size that the pickle states, and reads what lies behind the bytes."""
    content = rewritten(saved(w=th.zeros(100)), "data/0", lambda data: data[:8])
    with pytest.raises(ReadError, match=r"the weights w have the shape \(100,\), but only 2 numbers"):
        read_state_dict(content)


@pytest.mark.parametrize("name", [b"os\nsystem", b"builtins\neval", b"torch.hub\nload"])
def test_names_that_are_none_of_weights_are_refused(name):
    content = rewritten(
        saved(w=th.zeros(2)), "data.pkl", lambda data: data.replace(b"torch._utils\n_rebuild_tensor_v2", name)
    )
    with pytest.raises(ReadError, match=r"it refers to .*, which does not belong in weights"):
        read_state_dict(content)
