"""Every message and RPC is commented, and every field of the protos that clients see."""

import re
import unittest

import tracked

INTERNAL = "proto/ckpt/v1/storage.proto"  # its rows are documented as wholes
FIELD = re.compile(r"\s*((repeated|optional)\s+)?[\w.]+ \w+ = \d+;")
NAMED = re.compile(r"\s*rpc \w|(message|enum) \w")


def uncommented(text, fields):
    """The lines that need a comment, above or behind them, and have none."""
    found, above = [], ""
    for line in text.splitlines():
        if (NAMED.match(line) or (fields and FIELD.match(line))) and "//" not in line and not above.strip().startswith("//"):
            found.append(line.strip())
        above = line
    return found


class ProtoComments(unittest.TestCase):
    def test_what_clients_see_is_commented(self):
        protos = tracked.files("proto/*.proto")
        self.assertIn(INTERNAL, protos)
        for path in protos:
            missing = uncommented(tracked.read(path), path != INTERNAL)
            if path == "proto/ckpt/v1/service.proto":  # a call's own messages are documented at the call
                missing = [line for line in missing if not re.fullmatch(r"message \w+(Request|Response) {", line)]
            self.assertEqual(missing, [], path)

    def test_catches_what_is_missing(self):
        self.assertEqual(uncommented("// It.\nmessage M {\n  int32 a = 1;\n  int32 b = 2;  // why\n}\n", True),
                         ["int32 a = 1;"])


if __name__ == "__main__":
    unittest.main()
