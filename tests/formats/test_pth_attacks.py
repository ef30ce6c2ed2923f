"""Damaged and hostile .pth files: an orderly error that says what and where, and nothing of them is run."""

import collections
import dataclasses
import enum
import io
import os
import pathlib
import pickle
import random
import struct
import sys
import zipfile
import zlib

import numpy as np
import pytest
import torch


class Hook:
    def __init__(self):
        self.cycle = self


class Dict(dict):
    pass


class Int(int):
    pass


class Color(enum.Enum):
    RED = 1


class EnumMember:
    """Written as enum members are by Python 3.11.0 to 3.11.3."""

    def __reduce__(self):
        return getattr, (Color, "RED")


@dataclasses.dataclass
class Config:
    lr: float = 0.1


class Subclass(torch.Tensor):
    pass


Point = collections.namedtuple("Point", "x y")


class Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def archive(path, pickled, entries=None, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", pickled)
        for name, content in (entries or {"byteorder": b"little", "version": b"3\n"}).items():
            file.writestr(f"archive/{name}", content)
    return path


def refuse_pickle(copy, tmp_path, pickled, **more):
    return copy.refuse(archive(tmp_path / "in.pth", pickled, **more))


def attributes(tensor):
    tensor.note = "x"
    return tensor


def object_array():
    return np.array([1, None], dtype=object)


@pytest.mark.parametrize(
    ("value", "type_name"),
    [
        (Hook(), "test_pth_attacks.Hook"),
        (Dict(a=1), "test_pth_attacks.Dict"),
        (Int(3), "test_pth_attacks.Int"),
        (Color.RED, "test_pth_attacks.Color"),
        (EnumMember(), "test_pth_attacks.Color.RED"),
        (Config(), "test_pth_attacks.Config"),
        (Point(1, 2), "test_pth_attacks.Point"),
        (Hook, "test_pth_attacks.Hook"),
        (os.getcwd, "posix.getcwd"),
        (len, "builtins.len"),
        (range(3), "builtins.range"),
        (slice(1), "builtins.slice"),
        (int, "builtins.int"),
        (ValueError("x"), "builtins.ValueError"),
        (torch.randn(3, 3).to_sparse(), "torch._utils._rebuild_sparse_tensor"),
        (torch.zeros(2, device="meta"), "torch._utils._rebuild_meta_tensor_no_storage"),
        (torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "torch._utils._rebuild_qtensor"),
        (torch.ones(2, dtype=torch.complex64).conj(), "torch.Tensor with a conj"),
        (attributes(torch.ones(2)), "torch.Tensor with attributes"),
        (attributes(torch.nn.Parameter(torch.ones(2))), "torch.nn.parameter.Parameter with attributes"),
        (torch.ones(2).as_subclass(Subclass), "test_pth_attacks.Subclass"),
        (torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
        (torch.ones(2).untyped_storage(), "torch.storage.UntypedStorage"),
        (object_array(), "numpy.ndarray"),
        (np.array([(1,)], dtype=[("a", "i4")]), "numpy.ndarray of numpy.dtype with fields"),
        (collections.defaultdict(Hook), "collections.defaultdict(test_pth_attacks.Hook)"),
        (collections.defaultdict(len), "collections.defaultdict(builtins.len)"),
        ({(1, 2): 3}, "builtins.dict with a key of type builtins.tuple"),
        (collections.Counter([torch.float32]), "collections.Counter with a key of type torch.dtype"),
        ({Hook: 3}, "builtins.dict with a key of type test_pth_attacks.Hook"),
        (collections.deque([1]), "collections.deque"),
    ],
)
def test_other_types_are_refused_with_path_and_type(copy, tmp_path, value, type_name):
    torch.save({"model": {}, "optimizer": {"hook": [0, value]}}, tmp_path / "in.pth")
    why = copy.refuse(tmp_path / "in.pth")
    assert f"optimizer.hook.1: {type_name}" in why, why


@pytest.mark.parametrize("protocol", [2, 4])
def test_members_of_sets_are_refused_with_path_and_type(copy, tmp_path, protocol):
    for value, type_name in [
        ({(2, 3)}, "builtins.tuple in a builtins.set"),
        (frozenset([torch.Size([1])]), "torch.Size in a builtins.frozenset"),
        ({np.float32(1)}, "numpy.generic in a builtins.set"),
        ({pathlib.PurePosixPath("a")}, "pathlib.PurePosixPath in a builtins.set"),
        ({collections.deque}, "collections.deque"),
    ]:
        torch.save({"optimizer": {"hook": value}}, tmp_path / "in.pth", pickle_protocol=protocol)
        why = copy.refuse(tmp_path / "in.pth")
        assert f"optimizer.hook.0: {type_name};" in why, why


@pytest.mark.parametrize(
    ("name", "type_name"),
    [
        (b"__builtin__\nxrange", "builtins.range"),
        (b"exceptions\nKeyError", "builtins.KeyError"),
        (b"copy_reg\n_reconstructor", "copyreg._reconstructor"),
    ],
)
def test_names_of_python_2_are_said_as_today(copy, tmp_path, name, type_name):
    why = refuse_pickle(copy, tmp_path, b"\x80\x02}X\x01\x00\x00\x00hc" + name + b"\nK\x05\x85Rs.")
    assert f"h: {type_name};" in why, why


def test_odd_places_are_named(copy, tmp_path):
    for state, place in [(range(3), "the whole state"), ({"": range(3)}, "''"), ({"a.b": {1: range(3)}}, "a.b.1")]:
        torch.save(state, tmp_path / "in.pth")
        assert f"in.pth: {place}: builtins.range;" in copy.refuse(tmp_path / "in.pth")


def test_large_values_are_refused_with_path_and_type(copy, tmp_path):
    size = 3 << 20
    for value, kind in [("x" * size, "str"), (b"x" * size, "bytes"), (bytearray(size), "bytearray"), (1 << 8 * size, "int")]:
        torch.save({"optimizer": {"hook": [0, value]}}, tmp_path / "in.pth")
        why = copy.refuse(tmp_path / "in.pth")
        assert f"optimizer.hook.1: builtins.{kind} of" in why and "TOO_LARGE" in why, why
    torch.save({"text": "x" * (size - 100), "array": np.zeros(size, "S1"), "tensor": torch.zeros(size)}, tmp_path / "in.pth")
    copy(tmp_path / "in.pth", tmp_path / "out.pth")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_that_runs_a_command_does_not_run_it(copy, tmp_path, protocol):
    trace = tmp_path / "was_run"
    torch.save({"model": {"w": Runs(trace)}}, tmp_path / "in.pth", pickle_protocol=protocol)
    why = copy.refuse(tmp_path / "in.pth")
    assert "model.w: posix.system" in why, why
    assert not trace.exists()
    torch.load(tmp_path / "in.pth", weights_only=False)  # the attack is a real one
    assert trace.exists()


def test_cycles(copy, tmp_path):
    state = {"a": {"b": []}}
    state["a"]["b"].append(state["a"])
    torch.save(state, tmp_path / "in.pth")
    assert "a.b.0: builtins.dict, a container that contains itself" in copy.refuse(tmp_path / "in.pth")
    loop = []
    loop.append((loop,))
    torch.save(loop[0], tmp_path / "in.pth")
    assert "contains itself" in copy.refuse(tmp_path / "in.pth")


@pytest.mark.parametrize(("opening", "closing"), [(b"]", b"a"), (b"}K\x01", b"s"), (b"", b"\x85")])
def test_deep_nesting(copy, tmp_path, opening, closing):
    pickled = b"\x80\x02" + opening * 10_000 + b"N" + closing * 10_000 + b"."
    assert "levels deep" in refuse_pickle(copy, tmp_path, pickled)


def test_a_thousand_levels_are_kept(copy, tmp_path):
    archive(tmp_path / "in.pth", b"\x80\x02" + b"]" * 1000 + b"N" + b"a" * 1000 + b".")
    copy(tmp_path / "in.pth", tmp_path / "out.pth")


def test_references_that_multiply(copy, tmp_path):
    """A list of ten of a list of ten of …: a billion values in a few hundred bytes."""
    pickled = b"\x80\x02]q\x000"
    for level in range(1, 10):
        pickled += b"](" + b"h%c" % (level - 1) * 10 + b"eq%c0" % level
    assert "multiply" in refuse_pickle(copy, tmp_path, pickled + b"h\x09.")


TEXT = b"X\xa0\x86\x01\x00" + b"a" * 100_000


@pytest.mark.parametrize(
    "pickled",
    [
        TEXT + b"q\x000](" + b"h\x00" * 50_000 + b"e",
        b"c_codecs\nencode\nq\x000" + TEXT + b"X\x06\x00\x00\x00latin1\x86q\x010](" + b"h\x00h\x01R" * 50_000 + b"e",
        b"ctorch\nSize\nq\x000(" + b"N" * 100_000 + b"t\x85q\x010](" + b"h\x00h\x01R" * 50_000 + b"e",
        b"(" + TEXT + b"q\x00" + TEXT + b"q\x011](" + b"h\x00h\x01\x93" * 50_000 + b"e",
    ],
    ids=["text", "bytes", "items", "names"],
)
def test_large_values_that_multiply(copy, tmp_path, pickled):
    """Gigabytes of copies in a few hundred kilobytes."""
    assert "multiply" in refuse_pickle(copy, tmp_path, b"\x80\x02" + pickled + b".")


def test_a_path_of_parts_that_multiply(copy, tmp_path):
    pickled = TEXT + b"q\x000cpathlib\nPosixPath\n(" + b"h\x00" * 250_000 + b"tR."
    assert "PosixPath" in refuse_pickle(copy, tmp_path, b"\x80\x02" + pickled)
    assert copy.peak_mib < 400


@pytest.mark.parametrize("opcode, says", [(b"]", "values"), (b"N", "left over")])
def test_memory_is_in_proportion_to_the_pickle(copy, tmp_path, opcode, says):
    assert says in refuse_pickle(copy, tmp_path, b"\x80\x02" + opcode * (8 << 20) + b".")
    assert copy.peak_mib < 400


def test_parts_that_are_refused_later(copy, tmp_path):
    """BUILD on a tensor's storage, after the tensor was made of it."""
    storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQq\x00"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00K\x04\x85K\x01\x85\x89NtRq\x010"
    why = refuse_pickle(copy, tmp_path, b"\x80\x02" + tensor + b"h\x00Nb0h\x01.")
    assert "torch.FloatStorage with attributes that its type does not have" in why, why


def test_equal_copies_of_a_container_are_fine(copy, tmp_path):
    betas = [0.9, 0.99]
    torch.save({"a": betas, "b": betas}, tmp_path / "in.pth")
    copy(tmp_path / "in.pth", tmp_path / "out.pth")
    assert torch.load(tmp_path / "out.pth") == {"a": betas, "b": betas}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b".",
        b"N",
        b"(.",
        b"NN.",
        b"(N.",
        b"0.",
        b"1.",
        b"h\x05.",
        b"j\xff\xff\xff\xff.",
        b"q\x00.",
        b"r\xff\xff\xff\xff.",
        b"t.",
        b"\x85.",
        b"R.",
        b"NNR.",
        b"NN\x81.",
        b"Nb.",
        b"b.",
        b"Q.",
        b"NQ.",
        b")Q.",
        b"]K\x01K\x02s.",
        b"}K\x01a.",
        b"}(K\x01u.",
        b"a.",
        b"e.",
        b"u.",
        b"X\xff\xff\xff\xffabc.",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc.",
        b"B\xff\xff\xff\x7fabc.",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x96\xff\xff\xff\xff\xff\xff\xff\xff.",
        b"\x8a\xff.",
        b"\x8b\xff\xff\xff\xff.",
        b"\x8b\xff\xff\xff\x7f.",
        b"cos\nsystem",
        b"cos",
        b"c",
        b"\x93.",
        b"NN\x93.",
        b"I1\n.",
        b"V1\n.",
        b"i\n.",
        b"o.",
        b"P1\n.",
        b"\x82\x01.",
        b"\x97.",
        b"\xff.",
        b"\x80\x06N.",
        b"\x80\x01N.",
        b"}(K\x01K\x02K\x01K\x03u.",
        b"ctorch._utils\n_rebuild_tensor_v2\n)R.",
        b"ctorch._utils\n_rebuild_tensor_v3\n(NNNNNNNtR.",
        b"ctorch._utils\n_rebuild_parameter\n(NNNtR.",
        b"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._tensor\n_rebuild_from_type_v2\nctorch\nTensor\n)NtR.",
        b"ccollections\nOrderedDict\n)RNb.",
        b"ccollections\nOrderedDict\n)R}(NNub.",
        b"cnumpy\ndtype\nX\x02\x00\x00\x00f4NN\x87R)b.",
        b"cnumpy\ndtype\nX\x09\x00\x00\x00f99999999NN\x87R.",
        b"cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\nNN\x87R.",
        b"ccollections\nCounter\n](K\x01e\x85R.",
        b"cbuiltins\ncomplex\nNN\x86R.",
        b"ctorch\nSize\nN\x85\x85R.",
        b"c_codecs\nencode\nX\x03\x00\x00\x00\xe2\x82\xacX\x06\x00\x00\x00latin1\x86R.",
        b"c_codecs\nencode\nX\x01\x00\x00\x00\xc3X\x06\x00\x00\x00latin1\x86R.",
        b"(" * 100_000,
        b"N" * 100_000,
        b"c" + b"a" * 100_000 + b"\n" + b"b" * 100_000 + b"\n.",
        b"}X\x20\x27\x00\x00" + b"k" * 10_016 + b"Ns.",
    ],
)
def test_malformed_pickles(copy, tmp_path, body):
    refuse_pickle(copy, tmp_path, b"\x80\x02" + body)


@pytest.mark.parametrize(
    ("size", "stride", "offset", "elements", "stored"),
    [
        ((2**40,), (1,), 0, 4, 16),
        ((2**63 - 1, 2**63 - 1), (1, 1), 0, 4, 16),
        ((4,), (2**62,), 0, 4, 16),
        ((4,), (1,), 1, 4, 16),
        ((4,), (1,), 2**62, 4, 16),
        ((4,), (-1,), 3, 4, 16),
        ((-4,), (1,), 0, 4, 16),
        ((4,), (1,), -1, 4, 16),
        ((4,), (1, 1), 0, 4, 16),
        ((4,), (1,), 0, 5, 16),
        ((4,), (1,), 0, 2**62, 16),
        ((4,), (1,), 0, -4, 16),
        ((4,), (1,), 0, 4, 15),
        ((4,), (1,), 0, 4, None),
        ((1,) * 100, (1,) * 100, 0, 4, 16),
    ],
)
def test_tensors_beyond_their_storage(copy, tmp_path, size, stride, offset, elements, stored):
    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", torch.FloatStorage, "0", "cpu", elements) if isinstance(value, Storage) else None

    class Tensor:
        def __reduce__(self):
            arguments = (Storage(), offset, size, stride, False, collections.OrderedDict())
            return torch._utils._rebuild_tensor_v2, arguments

    out = io.BytesIO()
    Pickler(out, protocol=2).dump({"w": Tensor()})
    entries = {} if stored is None else {"data/0": b"\0" * stored}
    why = refuse_pickle(copy, tmp_path, out.getvalue(), entries={"version": b"3", **entries})
    assert "w:" in why, why


def real_file(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "n": np.arange(20), "epoch": 3}
    torch.save(state, tmp_path / "real.pth")
    return (tmp_path / "real.pth").read_bytes()


def test_every_truncation(copy, tmp_path):
    data = real_file(tmp_path)
    for size in [0, 1, 3, 4, 30, 64, *range(100, len(data), 211), *range(len(data) - 60, len(data))]:
        (tmp_path / "cut.pth").write_bytes(data[:size])
        copy.refuse(tmp_path / "cut.pth")


def test_bit_flips_in_what_the_file_holds_are_noticed(copy, tmp_path):
    data = real_file(tmp_path)
    seeded = random.Random(int(copy.seed))
    with zipfile.ZipFile(tmp_path / "real.pth") as file:
        for info in file.infolist():
            at = info.header_offset
            names, extra = struct.unpack("<HH", data[at + 26 : at + 30])
            begin = at + 30 + names + extra
            for _ in range(min(info.file_size, 4)):
                flipped = bytearray(data)
                flipped[begin + seeded.randrange(info.file_size)] ^= 1 << seeded.randrange(8)
                (tmp_path / "flip.pth").write_bytes(flipped)
                copy.refuse(tmp_path / "flip.pth")


def test_bit_flips_anywhere_never_crash(copy, tmp_path):
    data = real_file(tmp_path)
    seeded = random.Random(int(copy.seed))
    for _ in range(300):
        flipped = bytearray(data)
        flipped[seeded.randrange(len(data))] ^= 1 << seeded.randrange(8)
        (tmp_path / "flip.pth").write_bytes(flipped)
        done = copy.run(tmp_path / "flip.pth", tmp_path / "out.pth", *seeded.choice([[], ["--no-crc"]]))
        assert done.returncode in (0, 1), done.stderr


def test_zip_bombs(copy, tmp_path):
    archive(tmp_path / "in.pth", b"\x80\x02N.", {"data/0": b"\0" * 50_000_000}, zipfile.ZIP_DEFLATED)
    assert "compressed" in copy.refuse(tmp_path / "in.pth")


def test_a_name_takes_the_memory_of_its_bytes(copy, tmp_path):
    copy(archive(tmp_path / "in.pth", b"\x80\x02N.", {f"data/{i}": b"" for i in range(100_000)}), tmp_path / "out.pth")
    assert copy.peak_mib < 80


def zip_by_hand(path, entries):
    """entries: name, offset of its local header, size as the directory has it. Two local headers and their data."""
    pickled = b"\x80\x02N."
    local = struct.pack("<IHHHHHIIIHH", 0x04034B50, 20, 0, 0, 0, 0, zlib.crc32(pickled), len(pickled), len(pickled), 16, 0)
    data = local + b"archive/data.pkl" + pickled
    data += local + b"archive/data/000" + pickled
    directory = b""
    for name, offset, size in entries:
        directory += struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, 20, 20, 0, 0, 0, 0, zlib.crc32(pickled), size, size, len(name), 0, 0, 0, 0, 0, offset) + name  # fmt: skip
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, len(entries), len(entries), len(directory), len(data), 0)
    path.write_bytes(data + directory + end)
    return path


def test_hostile_directories(copy, tmp_path):
    path = tmp_path / "in.pth"
    name = b"archive/data.pkl"
    copy(zip_by_hand(path, [(name, 0, 4)]), tmp_path / "ok.pth")
    assert "damaged header" in copy.refuse(zip_by_hand(path, [(name, 0, 4), (b"archive/data/000", 0, 4)]))
    assert "share bytes" in copy.refuse(zip_by_hand(path, [(name, 0, 54), (b"archive/data/000", 50, 4)]))
    assert "have the name" in copy.refuse(zip_by_hand(path, [(name, 0, 4), (name, 0, 4)]))
    copy.refuse(zip_by_hand(path, [(name, 0, 4000)]))
    copy.refuse(zip_by_hand(path, [(name, 4000, 4)]))
    copy.refuse(zip_by_hand(path, [(name, 1, 4)]))
    copy.refuse(zip_by_hand(path, [(b"archive/\ndata.pkl", 0, 4)]))
    copy.refuse(zip_by_hand(path, []))


def test_what_is_no_file_of_torch_save(copy, tmp_path):
    path = tmp_path / "in.pth"
    for data in (b"", b"hello", b"PK\x03\x04", b"PK\x05\x06" + b"\0" * 18, b"\x89PNG" * 100, os.urandom(5000)):
        path.write_bytes(data)
        copy.refuse(path)
    assert "NOT_FOUND" in copy.refuse(tmp_path / "absent.pth")
    (tmp_path / "folder.pth").mkdir()
    assert "regular file" in copy.refuse(tmp_path / "folder.pth")
    os.mkfifo(tmp_path / "fifo.pth")
    assert "regular file" in copy.refuse(tmp_path / "fifo.pth")
    torch.save({"a": torch.ones(1)}, path, _use_new_zipfile_serialization=False)
    assert "before PyTorch 1.6" in copy.refuse(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme/x", "y")
    assert "data.pkl" in copy.refuse(path)
    archive(path, b"\x80\x02N.", {"byteorder": b"big"})
    assert "big-endian" in copy.refuse(path)
    archive(path, b"\x80\x02N.", {"constants.pkl": b"\x80\x02N."})
    assert "TorchScript" in copy.refuse(path)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_real_torchscript_archive(copy, tmp_path):
    class Net(torch.nn.Module):
        def forward(self, x):
            return x + 1

    torch.jit.script(Net()).save(str(tmp_path / "in.pth"))
    assert "TorchScript" in copy.refuse(tmp_path / "in.pth")
