"""Files of torch.save, read and written again: torch.load must give the same."""

import argparse
import collections
import pathlib
import random
import struct

import numpy as np
import pytest
import torch
from same_state import assert_same
from torch import nn


def round_trip(copy, state, tmp_path, *, weights_only=True, options=(), **save):
    source, target = tmp_path / "in.pth", tmp_path / "out.pth"
    torch.save(state, source, **save)
    copy(source, target, *options)
    for mmap in (False, True):
        loaded = torch.load(target, weights_only=weights_only, mmap=mmap)
        assert_same(torch.load(source, weights_only=False), loaded)
    # What is written is read the same, too: written twice, it is the same file.
    again = copy(target, tmp_path / "again.pth")
    assert again.read_bytes() == target.read_bytes()
    return loaded


class Net(nn.Module):
    """An embedding tied to the output, BatchNorm, a frozen layer."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(13, 8)
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.frozen = nn.Linear(8, 8)
        self.output = nn.Linear(8, 13, bias=False)
        self.output.weight = self.embedding.weight
        self.frozen.requires_grad_(False)

    def forward(self, x):
        h = self.embedding(x)  # N, 8, 8
        h = self.norm(self.conv(h.unsqueeze(1))).mean(dim=1)
        return self.output(self.frozen(h))


def train(make_optimizer, make_scheduler=None, steps=4):
    torch.manual_seed(1)
    net = Net()
    optimizer = make_optimizer(net)
    scheduler = make_scheduler(optimizer) if make_scheduler else None
    for _ in range(steps):
        x = torch.randint(13, (5, 8))
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x).flatten(0, 1), x.flatten()).backward()
        optimizer.step()
        if scheduler:
            scheduler.step()
    return net, optimizer, scheduler


def groups(net):
    decay = [net.embedding.weight, net.conv.weight]
    return [{"params": decay, "weight_decay": 0.1}, {"params": [net.conv.bias, *net.norm.parameters()], "lr": 0.05}]


OPTIMIZERS = {
    "sgd": lambda net: torch.optim.SGD(groups(net), lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda net: torch.optim.Adam(groups(net), lr=0.1, amsgrad=True),
    "adamw": lambda net: torch.optim.AdamW(groups(net), lr=torch.tensor(0.01)),
    "adamw_frozen_too": lambda net: torch.optim.AdamW(net.parameters()),
}
SCHEDULERS = {
    "none": None,
    "multistep": lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [2, 3, 3]),
    "cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 10),
    "plateau_like": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=[0.1] * len(o.param_groups), total_steps=10),
    "sequential": lambda o: torch.optim.lr_scheduler.SequentialLR(
        o,
        [torch.optim.lr_scheduler.ConstantLR(o), torch.optim.lr_scheduler.ExponentialLR(o, 0.9)],
        milestones=[2],
    ),
}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_trained_model(copy, tmp_path, optimizer, scheduler):
    net, opt, sched = train(OPTIMIZERS[optimizer], SCHEDULERS[scheduler])
    state = {
        "model": net.state_dict(),
        "optimizer": opt.state_dict(),
        "scheduler": sched and sched.state_dict(),
        "scaler": torch.amp.GradScaler("cpu", enabled=True).state_dict(),
        "rng": {"torch": torch.get_rng_state(), "python": random.getstate()},
        "epoch": 7,
        "best_accuracy": 0.75,
    }
    loaded = round_trip(copy, state, tmp_path)
    model = loaded["model"]
    assert model["embedding.weight"].data_ptr() == model["output.weight"].data_ptr()
    other = Net()
    other.load_state_dict(model)
    OPTIMIZERS[optimizer](other).load_state_dict(loaded["optimizer"])


def test_whole_parameters(copy, tmp_path):
    net, _, _ = train(OPTIMIZERS["sgd"])
    tied = net.embedding.weight
    frozen = nn.Parameter(torch.arange(3.0), requires_grad=False)
    leaf = torch.ones(2, requires_grad=True)
    state = {"a": tied, "b": tied, "parameters": dict(net.named_parameters()), "frozen": frozen, "leaf": leaf}
    loaded = round_trip(copy, state, tmp_path)
    assert loaded["a"] is loaded["b"]


DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32, torch.uint64, torch.int64,
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex32, torch.complex64, torch.complex128,
    torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz, torch.float8_e8m0fnu,
]  # fmt: skip


def random_tensor(dtype, *shape):
    size = torch.Size(shape).numel() * dtype.itemsize
    if size == 0:
        return torch.empty(shape, dtype=dtype)
    limit = 2 if dtype == torch.bool else 256
    return torch.randint(limit, (size,), dtype=torch.uint8).view(dtype).reshape(shape)


def test_every_dtype(copy, tmp_path):
    state = {
        str(d): {"many": random_tensor(d, 3, 5), "none": random_tensor(d, 0, 4), "one": random_tensor(d, 1).reshape(())}
        for d in DTYPES
    }
    state["dtypes"] = DTYPES
    round_trip(copy, state, tmp_path)


def test_strides_and_shared_memory(copy, tmp_path):
    flat = torch.arange(240.0)
    batch = torch.randn(2, 3, 4, 5)
    grid = torch.randn(6, 7)
    state = {
        "channels_last": batch.to(memory_format=torch.channels_last),
        "channels_last_one": torch.randn(4, 1, 3, 3).to(memory_format=torch.channels_last),
        "transposed": torch.randn(3, 5).t(),
        "flat": [flat[:100].view(10, 10), flat[100:112], flat[50:60], flat[::2]],
        "column": grid[:, 2],
        "inner": torch.randn(100)[40:50],
        "expanded": torch.randn(1, 3).expand(4, 3),
        "tied": (grid, grid.view(6, 7), grid.t()),
        "bits": (flat[:4].clone(), torch.zeros(0), flat[7:7]),
        "permuted": torch.randn(2, 3, 4).permute(2, 0, 1),
        "zero_strided": torch.empty_strided((2, 0, 3), (7, 2, 1)),
        "odd_one": torch.empty_strided((1, 3), (17, 1)).fill_(2),
        "half": torch.randn(9).half()[1:8:3],
        "complex": torch.randn(4, 4, dtype=torch.complex64).t(),
        "real": torch.view_as_real(torch.randn(3, dtype=torch.complex64))[:, 1],
    }
    round_trip(copy, state, tmp_path)


def test_plain_values(copy, tmp_path):
    nan = struct.unpack(">d", bytes.fromhex("fff8000000abcdef"))[0]
    odd = collections.OrderedDict([("z", 1), ("a", 2)])
    odd._metadata = {"": {"version": 2}}
    odd.second = [odd_value := torch.ones(2)]
    state = {
        "ints": [0, 1, -1, 255, 256, 65535, 65536, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 10**60, -(10**60), 2**2000 - 1, -128, -129, 2**39, -(2**39)],
        "floats": [0.0, -0.0, float("inf"), nan, 5e-324, 1 / 3],
        "complex": [1 + 2j, complex(nan, -0.0)],
        "texts": ["", "é", "\ud800 lone", "a\nb\0c", "x" * 70000],
        "bytes": [b"\x00\xff", bytes(range(256)) * 3, bytearray(b""), bytearray(b"ab\xff")],
        "none": None,
        "bools": (True, False),
        0: "int key",
        -5: "negative",
        2**70: "huge",
        None: "none",
        1.5: "float",
        b"k": "bytes",
        True + 1: {"nested": ({}, [], (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4))},
        "odd": odd,
        "same": odd_value,
        "set": {1, 2, "a", None},
        "empty_set": set(),
        "size": torch.Size([1, 2, 3]),
        "devices": [torch.device("cpu"), torch.device("cuda:1"), torch.device("cuda")],
        "layout": [torch.strided, torch.sparse_coo],
        "counter": collections.Counter({3: 2, 5: 1}),
        "empty_counter": collections.Counter(),
        "long": list(range(2500)),
        "many": {i: str(i) for i in range(2500)},
        "long_tuple": tuple(range(2500)),
    }  # fmt: skip
    del state["ints"][17]  # of 251 bytes: see below
    round_trip(copy, state, tmp_path)


def test_values_that_torch_itself_loads_only_without_weights_only(copy, tmp_path):
    state = {
        "frozenset": frozenset([1, 2]),
        "empty": frozenset(),
        "default": collections.defaultdict(list, a=[1]),
        "factories": [collections.defaultdict(f) for f in (int, float, str, dict, set, tuple, bool, None)],
        "posix": pathlib.PosixPath("/a/b"),
        "pure": [pathlib.PurePosixPath("a/b"), pathlib.PureWindowsPath("c:/x/y"), pathlib.PosixPath("."), pathlib.PosixPath("/")],
        "version": torch.__version__,
        "args": argparse.Namespace(lr=0.1, layers=[1, 2], nested=argparse.Namespace(), w=torch.ones(1)),
        "huge": 1 << 3000,
        "no_bytes": b"",
    }  # fmt: skip
    round_trip(copy, state, tmp_path, weights_only=False)


def test_empty_bytes_load_with_weights_only(copy, tmp_path):
    torch.save({"no_bytes": b""}, tmp_path / "in.pth")
    copy(tmp_path / "in.pth", tmp_path / "out.pth")
    assert torch.load(tmp_path / "out.pth", weights_only=True) == {"no_bytes": b""}


def numpy_values():
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    return {
        "scalars": [np.float32(1.5), np.float64("nan"), np.int64(-3), np.bool_(True), np.complex64(1j), np.uint16(9), np.float16(2), np.str_("añ"), np.bytes_(b"ab\0c"), np.datetime64("2020-01-01"), np.timedelta64(5, "25s"), np.longdouble(1) / 3, np.timedelta64(5)],
        "arrays": [array, np.asfortranarray(array), array[:, 1], array[0, 0, 0:0], np.array(3), np.array([True, False]), np.array(["a", "bc"]), np.array([b"x", b"yz"]), np.array(["2020-01-01"], "M8[ns]"), np.array([1.0], ">f4"), np.zeros((2, 0, 3)), np.asfortranarray(np.array([["a", "bc", "d"]] * 2)), np.random.default_rng(1).bytes(3000), np.arange(5, dtype=np.uint8)],
        "dtypes": [np.dtype(t) for t in ("f4", ">i8", "?", "U5", "S3", "M8[us]", "c16", "V4")],
        "twice": [array, array],
        "rng": np.random.RandomState(3).get_state(),
    }  # fmt: skip


def test_numpy(copy, tmp_path):
    round_trip(copy, numpy_values(), tmp_path, weights_only=False)


def test_numpy_loads_with_weights_only_where_it_is_allowed(copy, tmp_path):
    state = {"a": np.arange(300), "b": np.float64(2)}
    torch.save(state, tmp_path / "in.pth")
    copy(tmp_path / "in.pth", tmp_path / "out.pth")
    allowed = [np._core.multiarray._reconstruct, np._core.multiarray.scalar, np.ndarray, np.dtype, type(np.dtype("i8")), type(np.dtype("f8"))]  # fmt: skip
    with torch.serialization.safe_globals(allowed):
        assert_same(state, torch.load(tmp_path / "out.pth", weights_only=True))


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_other_pickle_protocols(copy, tmp_path, protocol):
    net, opt, _ = train(OPTIMIZERS["adam"])
    args = argparse.Namespace(p=pathlib.PurePosixPath("a"))
    state = {"m": net.state_dict(), "o": opt.state_dict(), "n": numpy_values(), "f": frozenset([1]), "s": {1, 2}, "b": b"\xff", "ba": bytearray(b"\xff" * 300), "args": args, "text": "y" * 300, "c": collections.Counter("ab"), "d": collections.defaultdict(int)}  # fmt: skip
    round_trip(copy, state, tmp_path, weights_only=False, pickle_protocol=protocol)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_big_endian_arrays(copy, tmp_path, protocol):
    """As torch.load gives them: numpy makes all but protocol 5's little-endian when it reads them."""
    numbers = np.arange(6).reshape(2, 3)
    state = {t: numbers.astype(t) for t in (">i2", ">u4", ">i8", ">f2", ">f4", ">f8", ">f16", ">c8", ">c16", ">U3")}
    state["fortran"] = np.asfortranarray(numbers.astype(">f4"))
    state["time"] = np.array(["2020-01-01", "NaT"], ">M8[s]")
    state |= {"none": np.zeros((2, 0), ">i4"), "one": np.array(7, ">i4"), "twice": [state[">i2"]] * 2, "type": np.dtype(">i4")}
    loaded = round_trip(copy, state, tmp_path, weights_only=False, pickle_protocol=protocol)
    assert (loaded[">i8"] == numbers).all() and loaded[">i8"].flags.writeable
    assert loaded[">i8"].dtype.str == (">i8" if protocol == 5 else "<i8")


def test_bare_tensor_and_scalar(copy, tmp_path):
    round_trip(copy, torch.arange(5), tmp_path)
    round_trip(copy, 5, tmp_path)


def test_large_storage_keeps_its_checksum(copy, tmp_path):
    loaded = round_trip(copy, {"w": torch.randn(3_000_000)}, tmp_path)
    assert loaded["w"].untyped_storage().data_ptr() % 64 == 0


def test_storages_are_aligned(copy, tmp_path):
    torch.save({str(i): torch.ones(i) for i in range(20)}, tmp_path / "in.pth")
    copy(tmp_path / "in.pth", tmp_path / "out.pth")
    reader = torch._C.PyTorchFileReader(str(tmp_path / "out.pth"))
    assert all(reader.get_record_offset(f"data/{i}") % 64 == 0 for i in range(20))


@pytest.mark.parametrize("entries", [65535, 65536])
def test_more_entries_than_16_bits_count(copy, tmp_path, entries):
    count = entries - 5  # data.pkl, byteorder, version and two more
    torch.save([torch.tensor([i]) for i in range(count)], tmp_path / "in.pth")
    loaded = torch.load(copy(tmp_path / "in.pth", tmp_path / "out.pth"), weights_only=True)
    assert len(loaded) == count and torch.equal(torch.cat(loaded), torch.arange(count))
    copy(tmp_path / "out.pth", tmp_path / "again.pth")


def test_file_beyond_4_gib(copy, tmp_path):
    source = tmp_path / "in.pth"
    small = {"w": torch.zeros(1000), "b": torch.zeros(3)}
    with torch.serialization.skip_data():  # makes a sparse file
        torch.save({"large": {"w": torch.empty(1100 << 20)}, "small": small}, source)
    with open(source, "r+b") as file:
        for i, tensor in enumerate(small.values()):
            tensor.normal_()
            file.seek(torch._C.PyTorchFileReader(str(source)).get_record_offset(f"data/{i + 1}"))
            assert file.tell() > 4 << 30
            file.write(tensor.numpy().tobytes())
    loaded = torch.load(copy(source, tmp_path / "out.pth", "--no-crc", "--component", "small"))
    assert_same(loaded, {"small": small})


def test_device_survives(copy, tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "in.pth")
    data = (tmp_path / "in.pth").read_bytes()
    at = data.index(b"X\x03\0\0\0cpu")
    (tmp_path / "gpu.pth").write_bytes(data[: at + 5] + b"xla" + data[at + 8 :])
    copy(tmp_path / "gpu.pth", tmp_path / "out.pth", "--no-crc")
    seen = []
    torch.load(tmp_path / "out.pth", map_location=lambda storage, location: seen.append(location) or storage)
    assert seen == ["xla"]


def test_wrong_crc_is_refused_unless_turned_off(copy, tmp_path):
    source = tmp_path / "in.pth"
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.randn(50)}, source)
    finally:
        torch.serialization.set_crc32_options(True)
    assert "CRC-32" in copy.refuse(source)
    copy(source, tmp_path / "out.pth", "--no-crc")
    assert_same(torch.load(source), torch.load(tmp_path / "out.pth"))


def test_one_component(copy, tmp_path):
    net, opt, _ = train(OPTIMIZERS["adam"])
    torch.save({"model": net.state_dict(), "optimizer": opt.state_dict()}, tmp_path / "in.pth")
    copy(tmp_path / "in.pth", tmp_path / "out.pth", "--component", "model")
    assert_same({"model": torch.load(tmp_path / "in.pth")["model"]}, torch.load(tmp_path / "out.pth"))
