"""The protos against their lock, and the lock's own rules.  usage: proto_lock_test.py DESCRIPTORS PROTOC"""

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import proto_lock  # noqa: E402

DESCRIPTORS = sys.argv.pop(1)
PROTOC = sys.argv.pop(1)

OLD = """syntax = "proto3"; package t;
message M { string name = 1; oneof choice { int64 a = 2; } message N { repeated bytes b = 1; } }
enum E { E_UNSPECIFIED = 0; E_ONE = 1; }
service S { rpc Do(M) returns (stream M); }
"""


def compiled(text):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "t.proto").write_text(text)
        subprocess.run([PROTOC, "-I", folder, f"--descriptor_set_out={folder}/set", f"{folder}/t.proto"], check=True)
        return proto_lock.describe(Path(folder, "set").read_bytes())


class ProtoLock(unittest.TestCase):
    def test_protos_are_as_locked(self):
        done = subprocess.run([sys.executable, ROOT / "tools/proto_lock.py", DESCRIPTORS, ROOT / "proto/ckpt.lock"],
                              capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_describes_fields_values_and_calls(self):
        self.assertEqual(compiled(OLD), {
            "t.M 1": "string name", "t.M 2": "int64 a in choice", "t.M.N 1": "repeated bytes b",
            "t.E 0": "E_UNSPECIFIED", "t.E 1": "E_ONE", "t.S Do": "t.M -> stream t.M"})

    def assert_breaks(self, old_text, new_text, place):
        broken = proto_lock.breaks(compiled(OLD), compiled(OLD.replace(old_text, new_text)))
        self.assertEqual(len(broken), 1, broken)
        self.assertTrue(broken[0].startswith(place), broken)

    def test_changes_break(self):
        self.assert_breaks("string name", "bytes name", "t.M 1 ")
        self.assert_breaks("string name", "string title", "t.M 1 ")
        self.assert_breaks("string name", "repeated string name", "t.M 1 ")
        self.assert_breaks("name = 1", "name = 3", "t.M 1 ")
        self.assert_breaks("string name = 1;", "", "t.M 1 ")
        self.assert_breaks("E_ONE = 1", "E_ONE = 2", "t.E 1 ")
        self.assert_breaks("returns (stream M)", "returns (M)", "t.S Do ")

    def test_additions_and_reserved_numbers_do_not_break(self):
        for old, new in (("string name = 1;", "string name = 1; bool more = 9;"),
                         ("string name = 1;", 'reserved 1; reserved "name";')):
            self.assertEqual(proto_lock.breaks(compiled(OLD), compiled(OLD.replace(old, new))), [])


if __name__ == "__main__":
    unittest.main()
