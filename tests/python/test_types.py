"""Every type that a state may hold comes back exactly; every other is refused with its path and type."""

import argparse
import collections
import dataclasses
import enum
import math
import pathlib
import random
import struct

import ckptd
import numpy as np
import pytest
import torch
from same_state import assert_same
from torch import nn


def round_trip(client, state, tmp_path=None):
    """What a restore gives must be what torch.load gives."""
    client.save("types", {"state": state}, epoch=1)
    restored = client.restore("types:latest")["state"]
    if tmp_path is not None:
        torch.save(state, tmp_path / "state.pth")
        assert_same(restored, torch.load(tmp_path / "state.pth", weights_only=False))
    return restored


NAN = struct.unpack("<d", struct.pack("<Q", 0x7FF8_0000_0000_BEEF))[0]
SCALARS = [None, True, False, 0, -1, 2**63 - 1, -(2**63), 2**63, -(2**63) - 1, 2**127, -(2**127), 10**100, 0.1, -0.0, math.inf, NAN,
           complex(NAN, -0.0), "", "text", "\ud800", "\0é", b"", b"\xff\0"]  # fmt: skip


def test_scalars(client, tmp_path):
    state = {"list": list(SCALARS), "tuple": tuple(SCALARS), "keys": dict.fromkeys(SCALARS, 1)}
    round_trip(client, state, tmp_path)


def test_containers(client, tmp_path):
    ordered = collections.OrderedDict(b=1, a=2)
    ordered._metadata = collections.OrderedDict({"": {"version": 1}})
    state = {
        "ordered": ordered,
        "default": collections.defaultdict(list, a=[1]),
        "default_none": collections.defaultdict(None, a=1),
        "counter": collections.Counter("hello"),
        "empty": [{}, [], (), set(), frozenset(), collections.OrderedDict(), bytearray()],
        "sets": [{1, "a", None}, frozenset((1.5, b"x"))],
        "bytes": bytearray(b"abc"),
        "namespace": argparse.Namespace(lr=0.1, betas=(0.9, 0.99), nested=argparse.Namespace(a=1)),
        "paths": [pathlib.PosixPath("/a/b"), pathlib.PurePosixPath("c"), pathlib.PureWindowsPath("d\\e")],
        1: {2.5: {None: 1}},
        "torch": [torch.Size([1, 2]), torch.float32, torch.bfloat16, torch.device("cuda:1"), torch.strided, torch.channels_last,
                  torch.__version__],
        "numpy": [np.dtype("f4"), np.dtype(">i8"), np.float32(1.5), np.float64(NAN), np.int8(-3), np.bool_(True), np.complex64(1j),
                  np.str_("hé"), np.bytes_(b"ab"), np.datetime64("2020-01-01", "ns")],
    }  # fmt: skip
    assert_same(round_trip(client, state), state)


def test_deep(client):
    state = leaf = []
    for _ in range(990):
        leaf.append([])
        leaf = leaf[0]
    restored = round_trip(client, state)
    depth = 0
    while restored:
        restored = restored[0]
        depth += 1
    assert depth == 990


DTYPES = [getattr(torch, name) for name in (
    "bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "bfloat16", "float32", "float64",
    "complex32", "complex64", "complex128", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu")]  # fmt: skip


def random_tensor(dtype, *shape):
    size = math.prod(shape) * torch.empty(0, dtype=dtype).element_size()
    data = torch.randint(0, 2 if dtype is torch.bool else 256, (size,), dtype=torch.uint8)
    return data.view(dtype).reshape(shape) if size else torch.empty(shape, dtype=dtype)


def test_dtypes_and_shapes(client, tmp_path):
    state = {str(dtype): [random_tensor(dtype, *shape) for shape in ((), (3,), (0, 4), (2, 3, 700))] for dtype in DTYPES}
    round_trip(client, state, tmp_path)


def test_layouts(client, tmp_path):
    image = torch.randn(2, 3, 40, 50)
    state = {
        "channels_last": image.to(memory_format=torch.channels_last),
        "transposed": torch.randn(30, 50).t(),
        "strided": torch.randn(100)[::3],
        "expanded": torch.randn(1, 5).expand(7, 5),
        "offset": torch.randn(100)[10:],
        "conj": torch.randn(5, dtype=torch.complex64).conj(),
        "neg": torch.randn(5, dtype=torch.complex64).conj().imag,
    }
    client.save("layouts", state, epoch=1)
    restored = client.restore("layouts@1")
    for name, tensor in state.items():
        assert torch.equal(restored[name], tensor), name
    for name in ("channels_last", "transposed", "strided", "expanded", "offset"):
        assert restored[name].stride() == state[name].stride(), name


def test_tensors_that_share_memory(client, tmp_path):
    flat = torch.randn(5000)
    tied = torch.randn(10, 10)
    parameter = nn.Parameter(torch.randn(4))
    state = {
        "a": flat[:1000], "b": flat[1000:].view(40, 100), "c": flat,
        "tied": [tied, tied], "alias": [tied[:5], tied.view(-1)],
        "parameter": parameter, "again": parameter, "data": parameter.data,
        "frozen": nn.Parameter(torch.ones(3), requires_grad=False), "leaf": torch.ones(2, requires_grad=True),
    }  # fmt: skip
    restored = round_trip(client, state, tmp_path)
    restored["c"].zero_()
    assert not restored["a"].any() and not restored["b"].any()
    assert restored["tied"][0] is restored["tied"][1] and restored["parameter"] is restored["again"]


def test_arrays(client, tmp_path):
    one = np.arange(6.0).reshape(2, 3)
    state = {
        "c": one, "same": one, "f": np.asfortranarray(one), "big": np.arange(4, dtype=">i4"),
        "text": np.array(["a", "bcd"]), "times": np.array(["2020-01-01"], "M8[s]"), "empty": np.empty((0, 3)), "zero": np.array(3),
        "bytes": np.array([b"ab", b"c"]), "half": np.ones(5000, np.float16), "bool": np.array([True, False]), "complex": np.ones(3, "c16"),
        "f_big": np.asfortranarray(np.arange(6, dtype=">i4").reshape(2, 3)), "row": np.ones((1, 5), order="F"),
    }  # fmt: skip
    restored = round_trip(client, state)
    assert_same(restored, state)
    restored["c"][0, 0] = 7  # it is writable
    strided = round_trip(client, {"a": np.arange(20)[::2]}, tmp_path)  # becomes contiguous, as it does in a file
    assert (strided["a"] == np.arange(20)[::2]).all()


def test_random_states(client, tmp_path):
    state = {"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.get_rng_state()}
    restored = round_trip(client, state, tmp_path)
    random.setstate(restored["python"])
    np.random.set_state(restored["numpy"])
    torch.set_rng_state(restored["torch"])


@dataclasses.dataclass
class Config:
    lr: float = 0.1


class Color(enum.Enum):
    RED = 1


class MyDict(dict):
    pass


class Named(collections.namedtuple("Named", "a b")):
    pass


def recursive():
    state = {"a": []}
    state["a"].append(state)
    return state


REFUSED = {
    "dataclass": (Config(), "Config"), "enum": (Color.RED, "Color"), "lambda": (lambda: 0, "function"), "module": (nn.Linear(1, 1), "Linear"),
    "subclass": (MyDict(a=1), "MyDict.*dict"), "namedtuple": (Named(1, 2), "Named.*tuple"), "object": (object(), "object"),
    "type": (int, "type"), "slice": (slice(1), "slice"), "recursive": (recursive(), "contains itself"),
    "int_enum": (enum.IntEnum("E", "A").A, "E.*int"), "key_tuple": ({(1, 2): 3}, "key of type tuple"), "key_object": ({object(): 1}, "key of type object"),
    "factory": (collections.defaultdict(lambda: 0), "factory"), "set_of_tuples": ({(1, 2)}, "tuple in a set"),
    "sparse": (torch.eye(3).to_sparse(), "layout"), "csr": (torch.eye(3).to_sparse_csr(), "layout"),
    "quantized": (torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "quantized"), "meta": (torch.ones(3, device="meta"), "meta"),
    "object_array": (np.array([object()]), "object"), "structured": (np.zeros(2, "i4,f4"), "numpy"), "storage": (torch.ones(3).untyped_storage(), "UntypedStorage"),
    "generator": (torch.Generator(), "Generator"), "masked": (np.ma.array([1]), "MaskedArray"),
    "subclass_tensor": (torch.ones(3).as_subclass(type("T", (torch.Tensor,), {})), "T"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_named(client, name):
    value, says = REFUSED[name]
    with pytest.raises(ckptd.InvalidState, match=rf"(?s)^optimizer\.hooks\.1.*{says}") as raised:
        client.save("refused", {"optimizer": {"hooks": [0, value]}}, epoch=1)
    assert raised.value.reason == "UNSUPPORTED_VALUE"
    assert ";" in str(raised.value), "it says what to do"


def test_attributes_of_a_tensor_are_not_dropped(client):
    tensor = torch.ones(2)
    tensor.note = "mine"
    with pytest.raises(ckptd.InvalidState, match="attributes of its own.*note"):
        client.save("refused", {"w": tensor}, epoch=1)


class Settings:
    def __init__(self, lr):
        self.lr = lr

    def __eq__(self, other):
        return isinstance(other, Settings) and other.lr == self.lr


class Ran:
    """Says that it was unpickled."""

    ran = False

    def __reduce__(self):
        return exec, ("import test_types; test_types.Ran.ran = True",)


def test_other_types_pass_as_pickles_where_both_sides_ask_for_it(client):
    state = {"epoch": 1, "config": Settings(0.1), "kind": [Color.RED], "model": {"w": torch.ones(3)}}
    with pytest.raises(ckptd.InvalidState, match=r"config: a value of type .*Settings; .*opaque='pickle'"):
        client.save("opaque", state)
    client.save("opaque", state, opaque="pickle")
    assert_same(client.restore("opaque:latest", allow_pickle=True), state)
    with pytest.raises(ckptd.InvalidState, match="test_types.Settings as a pickle, which runs code.*allow_pickle=True"):
        ckptd.load("opaque:latest")
    assert_same(client.restore("opaque:latest", components=["model"]), {"model": state["model"]})
    live = {"epoch": 1, "config": None, "kind": [], "model": {"w": torch.zeros(3)}}
    client.restore_into("opaque:latest", live)
    assert torch.equal(live["model"]["w"], torch.ones(3))


def test_no_pickle_runs_unless_it_is_allowed(client):
    client.save("trap", {"epoch": 1, "trap": Ran()}, opaque="pickle")
    model = nn.Linear(2, 2)
    client.save("trap", ckptd.torch.capture(model=model, epoch=2, trap=Ran()), opaque="pickle")
    for attempt in (
        lambda: client.restore("trap@1"),
        lambda: client.restore_into("trap@1", {"epoch": 1}),
        lambda: client.explain("trap@2", model=model),
        lambda: client.load_into("trap@2", model=model),
    ):
        try:
            attempt()
        except ckptd.InvalidState as error:
            assert error.reason == "PICKLE_NOT_ALLOWED"
    assert not Ran.ran
    report = client.load_into("trap@2", model=model, allow_pickle=True)
    assert Ran.ran and report.values["epoch"] == 2


def test_what_cannot_be_a_pickle_is_refused(client):
    for value, why in ((lambda: 0, "cannot be pickled"), (Settings("x" * (4 << 20)), "whose pickle has 4194")):
        with pytest.raises(ckptd.InvalidState, match=f"value: a value of type .* {why}"):
            client.save("opaque", {"epoch": 1, "value": value}, opaque="pickle")
    for value, why in ((torch.ones(2).to_sparse(), "layout"), (torch.ones(2, device="meta"), "meta")):
        with pytest.raises(ckptd.InvalidState, match=why):
            client.save("opaque", {"epoch": 1, "value": value}, opaque="pickle")
    with pytest.raises(ckptd.InvalidState, match="opaque is 'pickle' or None"):
        client.save("opaque", {"epoch": 1}, opaque="dill")
