"""Seeds of the fuzz targets that read protobuf messages, made by a writer of a few lines."""

import hashlib
import struct


def varint(value):
    value &= 2**64 - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def message(*fields):
    """Fields are (number, value): an int is a varint, a float a double, bytes or str length-delimited."""
    out = b""
    for number, value in fields:
        if isinstance(value, float):
            out += varint(number << 3 | 1) + struct.pack("<d", value)
        elif isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def pieces(*messages):
    return b"".join(struct.pack("<H", len(m)) + m for m in messages)


def packed(numbers):
    return b"".join(varint(n) for n in numbers)


DICT, ORDERED_DICT, LIST, SCALAR, TENSOR, ARRAY, PARAMETER = 2, 3, 6, 1, 19, 18, 20
UINT8, INT32, FLOAT32 = 2, 7, 12


def text(value):
    return message((7, value))


def node(kind, key=None, children=0, attributes=0, value=None, type_name="", tensor=0):
    fields = [(1, kind)]
    if key is not None:
        fields.append((2, text(key)))
    fields += [(3, children), (4, attributes)]
    if value is not None:
        fields.append((5, value))
    return message(*fields, (6, type_name), (7, tensor))


def tensor(path, component, dtype, shape, *more):
    return message((1, path), (2, component), (3, dtype), (4, packed(shape)), *more)


TREE = [
    node(DICT, children=3),
    node(ORDERED_DICT, "model", children=3, attributes=1),
    node(TENSOR, "w", tensor=0),
    node(PARAMETER, "b", tensor=1),
    node(TENSOR, "v", tensor=2),
    node(DICT, "_metadata", children=1),
    node(SCALAR, "version", value=message((3, 2))),
    node(LIST, "betas", children=2),
    node(SCALAR, value=message((5, struct.unpack("<d", struct.pack("<Q", 3))[0]))),
    node(SCALAR, value=message((1, 1))),
    node(SCALAR, "epoch", value=message((3, 6))),
]
STATE = message(*((1, n) for n in TREE))
CHUNK = b"c"  # stands for 4096 of it
DIGEST = hashlib.sha256(CHUNK * 4096).digest()


def tensors(digests=b"", fingerprints=b""):
    boxes = [(9, message((1, packed([0])), (2, packed([8192])), (3, digests), (4, fingerprints)))] if digests else []
    return [
        tensor("model.w", "model", UINT8, [8192], *boxes),
        tensor("model.b", "model", INT32, [1, 2], (5, packed([2, 1])), (7, 1), (10, b"12345678")),
        tensor("model.v", "model", FLOAT32, [2, 3], (5, packed([1, 2])), (8, "cuda:0"), (11, 0), (12, 16)),
    ]


def metric(name, value):
    return message((1, name), (2, value))


BEGIN = message((2, "run/a"), (3, 3), (4, 100), (5, metric("loss", 0.5)), (6, message((1, "host"), (2, "a"))),
                (7, b"0123456789abcdef"))


def save(*requests):
    return pieces(message((1, BEGIN)), *(message(r) for r in requests))


def save_streams():
    w, b, v = tensors()
    tail = [(3, message((1, b), (1, v))), (6, STATE), (7, message((1, metric("acc", 0.25))))]
    chunk = (4, message((1, CHUNK)))
    yield save((3, message((1, w))), chunk, chunk, *tail)
    yield save((3, message((1, w))), chunk, (5, message((1, DIGEST))), *tail)
    yield save((2, message((1, DIGEST))), (3, message((1, w))), chunk, chunk, (3, message((1, b))))
    x, y = (tensor(f"model.{name}", "model", UINT8, [8192]) for name in "xy")
    yield save((3, message((1, w))), chunk, chunk, (3, message((1, x), (1, b), (1, y), (2, DIGEST * 3))), chunk)
    yield save((6, message((1, node(SCALAR, value=message((1, 1)))))), (7, b""))


    yield b"".join(part(rank, coordinated=False) for rank in (1, 0))
    yield part(1, coordinated=True) + part(0, coordinated=True) + pieces(message((1, begin_of(2, True))), message((7, b"")))
    yield part(0, coordinated=False) + part(0, coordinated=False)


def begin_of(rank, coordinated):
    return BEGIN + message((8, rank), (9, 2), (11, int(coordinated)))


def part(rank, coordinated):
    """One of two ranks: half of a large tensor, half of a small one, and a tree over both."""
    large = tensor("model.w", "model", UINT8, [8192], (9, message((1, packed([rank * 4096])), (2, packed([4096])))))
    small = tensor("model.b", "model", UINT8, [2, 3], (9, message((1, packed([rank, 0])), (2, packed([1, 3])), (5, b"123"))))
    tree = [node(DICT, children=2), node(DICT, "model", children=2), node(TENSOR, "w", tensor=1), node(TENSOR, "b", tensor=0),
            node(SCALAR, f"rank {rank}", value=message((3, 6)))]
    return pieces(message((1, begin_of(rank, coordinated))), message((3, message((1, small), (1, large)))),
                  message((4, message((1, CHUNK)))), message((6, message(*((1, n) for n in tree)))), message((7, b"")))


def manifests():
    header = message((1, message((1, message((1, "run"), (2, 3), (13, 3))), (2, 4096))))
    parts = message((3, message((1, 0), *((2, t) for t in tensors(b"d" * 64, b"f" * 32)), (3, b"\x07"))))
    yield pieces(header, message((2, STATE)), parts, message((4, b"")))


def save_messages():
    for request in (message((1, BEGIN)), message((3, message(*((1, t) for t in tensors())))), message((6, STATE)),
                    message((4, message((1, b"payload"), (2, b"f" * 16)))), message((4, message((2, b"f" * 16), (9, 1), (1, b"p")))),
                    message((5, message((1, DIGEST)))), message((7, b""))):
        yield b"\0" + request
        yield b"\5" + request


def restore_messages():
    for response in (message((5, message((1, 3), (2, 1), (3, b"payload")))), message((5, message((3, b"p"), (9, 1), (1, 300)))),
                     message((1, message((2, 4096)))), message((2, STATE)), message((4, message((1, 8))))):
        yield b"\0" + response
        yield b"\3" + response


def restore_requests():
    everything = message((2, "a:latest"))
    some = message((2, "b/c@1#1"), (3, "model"), (4, "model.*"), (4, "?ptim[a-z]zer.m"))
    want = message((1, message((1, 0), (2, 1), (3, 2))))
    runs = message((2, 1), (3, "YQA="))
    checkpoints = message((2, "a"), (3, 1), (4, "gAAAAAAAAAAAAAAAAAAAAQ=="))
    yield pieces(everything, runs, checkpoints, b"a:latest", want, want)
    yield pieces(some, b"", message((2, "z")), b"z:best:loss:min", want)


def trees():
    yield pieces(b"") + STATE
    yield pieces(message((3, "model"), (4, "model.*"))) + STATE
    yield pieces(message((4, "*w"))) + STATE
    yield pieces(b"") + message((1, node(DICT, children=1)), (1, node(LIST, "é", children=1)), (1, node(DICT)))


def wire():
    yield b"\0" + message((1, 300), (2, b"bytes"), (3, 1.5), (2**29 - 1, 2**64 - 1)) + varint(4 << 3 | 5) + b"1234"
    yield b"\2" + STATE
    yield b"\0" + varint(1 << 3 | 3) + message((2, 1)) + varint(1 << 3 | 4)  # a group
