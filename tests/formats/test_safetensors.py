"""Files of the safetensors package, there and back, and what torch saved as .safetensors."""

import collections
import json
import struct

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from same_state import assert_same

DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32, torch.uint64, torch.int64,
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.float8_e8m0fnu, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz,
]  # fmt: skip


def random_tensor(dtype, *shape):
    size = torch.Size(shape).numel() * dtype.itemsize
    if size == 0:
        return torch.empty(shape, dtype=dtype)
    return torch.randint(2, (size,), dtype=torch.uint8).view(dtype).reshape(shape)


def same_tensors(a, b):
    assert sorted(a) == sorted(b)
    for name in a:
        assert_same(a[name].detach().contiguous().clone(), b[name].clone())


def test_every_dtype(copy, tmp_path):
    state = {f"{d}.{n}": random_tensor(d, *shape) for d in DTYPES for n, shape in enumerate([(3, 5), (), (0, 4), (1,)])}
    save_file(state, tmp_path / "in.safetensors", metadata={"format": "pt", "é\n\"": "\\\u2028"})
    copy(tmp_path / "in.safetensors", tmp_path / "out.safetensors")
    same_tensors(state, load_file(tmp_path / "out.safetensors"))
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "é\n\"": "\\\u2028"}
    # By way of a .pth, which keeps the metadata as an attribute.
    copy(tmp_path / "in.safetensors", tmp_path / "out.pth")
    loaded = torch.load(tmp_path / "out.pth", weights_only=True)
    assert isinstance(loaded, collections.OrderedDict) and loaded.__metadata__["format"] == "pt"
    same_tensors(state, loaded)
    copy(tmp_path / "out.pth", tmp_path / "back.safetensors")
    assert (tmp_path / "back.safetensors").read_bytes() == (tmp_path / "out.safetensors").read_bytes()


def test_without_metadata_it_is_a_plain_dict(copy, tmp_path):
    save_file({"b": torch.ones(2), "a": torch.zeros(3)}, tmp_path / "in.safetensors")
    copy(tmp_path / "in.safetensors", tmp_path / "out.pth")
    assert type(torch.load(tmp_path / "out.pth", weights_only=True)) is dict


def test_empty_file(copy, tmp_path):
    save_file({}, tmp_path / "in.safetensors")
    copy(tmp_path / "in.safetensors", tmp_path / "out.safetensors")
    assert load_file(tmp_path / "out.safetensors") == {}


def test_every_tensor_is_written_row_major_with_its_own_bytes(copy, tmp_path):
    flat = torch.arange(3000.0)
    grid = torch.randn(700, 900)
    state = {
        "channels_last": torch.randn(8, 3, 4, 5).to(memory_format=torch.channels_last),
        "transposed": grid.t(),
        "tied": grid,
        "again": grid,
        "parts": {"q": flat[:1000], "k": flat[1000:2000].view(10, 100), "odd": flat[1::2], "matrix": flat[:900].view(30, 30).t()},
        "expanded": torch.randn(1, 3).expand(4, 3),
        "bf16": torch.randn(6, 7).bfloat16().t(),
        "byte": torch.arange(7, dtype=torch.uint8),
        "double": torch.ones(2, dtype=torch.float64),
        "none": torch.zeros(3, 0),
        7: torch.nn.Parameter(torch.ones(1)),
    }  # fmt: skip
    torch.save(state, tmp_path / "in.pth")
    copy(tmp_path / "in.pth", tmp_path / "out.safetensors")
    expected = {str(k): v for k, v in state.items() if k != "parts"}
    expected.update({f"parts.{k}": v for k, v in state["parts"].items()})
    same_tensors(expected, load_file(tmp_path / "out.safetensors"))
    with open(tmp_path / "out.safetensors", "rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(length))
    assert length % 8 == 0
    for entry in header.values():
        size = {"F32": 4, "BF16": 2, "U8": 1, "F64": 8}[entry["dtype"]]
        assert entry["data_offsets"][0] % size == 0


def test_large_tensors_of_any_strides_take_little_memory(copy, tmp_path):
    matrix = torch.rand(6000, 4000)
    images = torch.rand(50, 3, 224, 224).to(memory_format=torch.channels_last)
    cube = torch.randint(255, (300, 310, 320), dtype=torch.uint8)
    state = {
        "transposed": matrix.t(),
        "every other": matrix[1:, ::2],
        "a column": matrix[:, 7],
        "far apart": matrix[::3, ::2000],
        "images": images,
        "cube": cube.permute(1, 0, 2)[5:],
        "turned": cube.permute(2, 1, 0),
        "doubles": torch.rand(2_500_000, 1, 2, dtype=torch.float64).permute(2, 1, 0),
        "repeated": torch.rand(3000, 1).expand(3000, 2000),
        "overlapping": matrix.as_strided((2500, 2500), (3, 5)),
    }
    torch.save(state, tmp_path / "in.pth")
    copy(tmp_path / "in.pth", tmp_path / "out.safetensors")
    same_tensors(state, load_file(tmp_path / "out.safetensors"))
    assert copy.peak_mib < 128


def test_one_component_has_its_own_names(copy, tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    torch.save({"model": model.state_dict(), "epoch": 3}, tmp_path / "in.pth")
    copy(tmp_path / "in.pth", tmp_path / "out.safetensors", "--component", "model")
    same_tensors(model.state_dict(), load_file(tmp_path / "out.safetensors"))


def test_a_refusal_names_the_component_that_names_in_the_file_leave_out(copy, tmp_path):
    for tensors, why in [
        ({"w": torch.ones(1, dtype=torch.complex128)}, "model.w: torch.complex128;"),
        ({"__metadata__": torch.ones(1)}, "model.__metadata__: a tensor whose name"),
    ]:
        torch.save({"model": tensors, "epoch": 3}, tmp_path / "in.pth")
        assert f" {why}" in copy.refuse(tmp_path / "in.pth", "--component", "model", target="out.safetensors")


@pytest.mark.parametrize(
    ("state", "where"),
    [
        ({"m": {"w": torch.ones(1)}, "epoch": 3}, "epoch: int;"),
        ({"m": {"w": torch.ones(1), "l": [torch.ones(1)]}}, "m.l: list;"),
        ({"m": {"w": torch.ones(1, dtype=torch.complex128)}}, "w: torch.complex128;"),
        ({"a.b": torch.ones(1), "a": {"b": torch.ones(1)}}, "a.b: a second tensor of the name a.b;"),
        ({"__metadata__": torch.ones(1)}, "__metadata__"),
        ({"\ud800": torch.ones(1)}, "not"),
        (torch.ones(1), "the whole state: tensor;"),
    ],
)
def test_what_it_cannot_hold_is_refused_with_its_place(copy, tmp_path, state, where):
    torch.save(state, tmp_path / "in.pth")
    assert where in copy.refuse(tmp_path / "in.pth", target="out.safetensors")


def file_of(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(begin, end, shape=None, dtype="U8"):
    return {"dtype": dtype, "shape": [end - begin] if shape is None else shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 7,
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 100_000_001) + b"{}",
        struct.pack("<Q", 3) + b"{}",
        file_of(b"[]"),
        file_of(b" {}"),
        file_of(b""),
        file_of(b"{"),
        file_of(b'{"a":'),
        file_of({}, b"x"),
        file_of({"a": entry(0, 4)}, b"abc"),
        file_of({"a": entry(0, 4)}, b"xxxxx"),
        file_of({"a": entry(0, 2), "b": entry(3, 4)}, b"xxxx"),
        file_of({"a": entry(0, 3), "b": entry(2, 4)}, b"xxxx"),
        file_of({"a": entry(0, 4), "b": entry(0, 4)}, b"xxxx"),
        file_of({"a": entry(4, 0, [4])}, b"xxxx"),
        file_of({"a": entry(0, 4, [2**32, 2**32, 2**32])}, b"xxxx"),
        file_of({"a": entry(0, 4, [-4])}, b"xxxx"),
        file_of({"a": entry(0, 4, [4.0])}, b"xxxx"),
        file_of({"a": entry(0, 4, [1] * 65 + [4])}, b"xxxx"),
        file_of({"a": entry(0, 4, [8], "F4")}, b"xxxx"),
        file_of({"a": entry(0, 4, dtype="nonsense")}, b"xxxx"),
        file_of({"a": {"dtype": "U8", "shape": [4]}}, b"xxxx"),
        file_of({"a": {**entry(0, 4), "more": 1}}, b"xxxx"),
        file_of({"a": {**entry(0, 4), "shape": {"x": 1}}}, b"xxxx"),
        file_of({"a": {**entry(0, 4), "data_offsets": [0, 4, 4]}}, b"xxxx"),
        file_of({"a": {**entry(0, 4), "data_offsets": [0]}}, b"xxxx"),
        file_of({"a": 5}),
        file_of({"a": None}),
        file_of({"__metadata__": {"a": 1}}),
        file_of({"__metadata__": {"a": {"b": "c"}}}),
        file_of({"__metadata__": ["a"]}),
        file_of(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[0],"data_offsets":[1,1]}}', b"x"),
        file_of(b'{"\xff":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x"),
        file_of(b'{"a":' * 1_000_000),
        file_of(b'{"a":{"shape":' + b"[" * 1_000_000),
    ],
)  # fmt: skip
def test_malformed_files_are_refused(copy, tmp_path, data):
    (tmp_path / "in.safetensors").write_bytes(data)
    copy.refuse(tmp_path / "in.safetensors", target="out.safetensors")


def test_every_truncation_is_refused(copy, tmp_path):
    save_file({"a": torch.ones(9), "b": torch.zeros(2)}, tmp_path / "in.safetensors")
    data = (tmp_path / "in.safetensors").read_bytes()
    for size in [*range(0, 40), *range(40, len(data), 7)]:
        (tmp_path / "cut.safetensors").write_bytes(data[:size])
        assert "truncated" in copy.refuse(tmp_path / "cut.safetensors", target="out.safetensors")
