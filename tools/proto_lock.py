"""Holds the compiled protos against proto/ckpt.lock, so that no change breaks what is stored or an older peer.

A line of the lock is one field, enum value or RPC. What is in the lock must stay as it is or become reserved; what is new
must be added to it with --write (./dev proto-lock), which refuses anything else.

usage: proto_lock.py [--write] DESCRIPTORS LOCK
"""

import sys
from pathlib import Path

TYPES = {
    1: "double", 2: "float", 3: "int64", 4: "uint64", 5: "int32", 6: "fixed64", 7: "fixed32", 8: "bool", 9: "string",
    11: "message", 12: "bytes", 13: "uint32", 14: "enum", 15: "sfixed32", 16: "sfixed64", 17: "sint32", 18: "sint64",
}
RESERVED = "reserved"


class Message:
    """A serialised message read without its description: the values of each field number."""

    def __init__(self, data):
        self.values = {}
        at = 0
        while at < len(data):
            key, at = self._varint(data, at)
            wire_type = key & 7
            if wire_type == 0:
                value, at = self._varint(data, at)
            else:
                size, at = self._varint(data, at) if wire_type == 2 else ({1: 8, 5: 4}[wire_type], at)
                value, at = data[at:at + size], at + size
            self.values.setdefault(key >> 3, []).append(value)

    @staticmethod
    def _varint(data, at):
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value, at

    def messages(self, number):
        return [Message(value) for value in self.values.get(number, [])]

    def text(self, number):
        return self.values.get(number, [b""])[0].decode()

    def number(self, number):
        return self.values.get(number, [0])[0]


# The numbers below are those of google/protobuf/descriptor.proto.
def describe_field(field, oneofs):
    kind = TYPES[field.number(5)]
    if kind in ("message", "enum"):
        kind = field.text(6).lstrip(".")
    label = "repeated " if field.number(4) == 3 else "optional " if field.number(17) else ""
    oneof = f" in {oneofs[field.number(9)]}" if 9 in field.values and not field.number(17) else ""
    return f"{label}{kind} {field.text(1)}{oneof}"


def describe_enum(prefix, enum):
    for value in enum.messages(2):
        yield f"{prefix}{enum.text(1)} {value.number(2)}", value.text(1)
    for reserved in enum.messages(4):
        for number in range(reserved.number(1), reserved.number(2) + 1):
            yield f"{prefix}{enum.text(1)} {number}", RESERVED


def describe_message(prefix, message):
    name = prefix + message.text(1)
    oneofs = [oneof.text(1) for oneof in message.messages(8)]
    for field in message.messages(2):
        yield f"{name} {field.number(3)}", describe_field(field, oneofs)
    for reserved in message.messages(9):
        for number in range(reserved.number(1), reserved.number(2)):
            yield f"{name} {number}", RESERVED
    for nested in message.messages(3):
        yield from describe_message(name + ".", nested)
    for enum in message.messages(4):
        yield from describe_enum(name + ".", enum)


def describe_service(prefix, service):
    for method in service.messages(2):
        request, response = (("stream " if method.number(stream) else "") + method.text(message).lstrip(".")
                             for message, stream in ((2, 5), (3, 6)))
        yield f"{prefix}{service.text(1)} {method.text(1)}", f"{request} -> {response}"


def describe(descriptors):
    """What the lock says of a serialised FileDescriptorSet: {place: what stands there}, in the order of the protos."""
    lines = {}
    for file in Message(descriptors).messages(1):
        prefix = file.text(2) + "."
        for message in file.messages(4):
            lines.update(describe_message(prefix, message))
        for enum in file.messages(5):
            lines.update(describe_enum(prefix, enum))
        for service in file.messages(6):
            lines.update(describe_service(prefix, service))
    return lines


def read_lock(text):
    return {place: what for place, _, what in (line.partition(": ") for line in text.splitlines())}


def breaks(locked, now):
    """What of the lock is neither as it was nor reserved."""
    return [f"{place} was '{what}' and is '{now.get(place, 'gone')}'"
            for place, what in locked.items() if now.get(place) not in (what, RESERVED)]


def main(arguments):
    write = arguments[:1] == ["--write"]
    descriptors, lock = arguments[-2:]
    now = describe(Path(descriptors).read_bytes())
    path = Path(lock)
    locked = read_lock(path.read_text()) if path.exists() else {}
    broken = breaks(locked, now)
    if broken:
        print("the protos break what is stored or an older peer:", *broken, sep="\n  ", file=sys.stderr)
        print("Give the new meaning a new number, and reserve the old number and name.", file=sys.stderr)
        return 1
    if write:
        path.write_text("".join(f"{place}: {what}\n" for place, what in now.items()))
    elif now != locked:
        new = [place for place in now if place not in locked]
        print("not in the lock yet:", *new, sep="\n  ", file=sys.stderr)
        print("If nothing of it is a mistake: ./dev proto-lock, and commit proto/ckpt.lock.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
