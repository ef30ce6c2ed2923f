"""Where each kind of status may be met: gRPC's at the edge, RocksDB's in its engine, absl's everywhere else."""

import re
import unittest

import tracked

# The conversion between absl::Status and grpc::Status, one file (with its header) each side.
CONVERSIONS = re.compile(r"(server|client)/grpc_status(_test)?\.(cc|h)")
GRPC_STATUS = re.compile(r"\bgrpc::Status\b")
# Elsewhere it is only passed through: what a handler returns or is handed, or what a stream ended with.
SIGNATURE = re.compile(r"^\s*(grpc::Status \w+(::\w+)?\(|(const )?grpc::Status&? \w+[;,)]|"
                       r".*\((const )?grpc::Status&? \w+[,)]|.*\bgrpc::Status \w+ = .*(Finish\(|call\(|->\w+\(&|\.\w+\(&))")


def misplaced(path, line):
    return bool(GRPC_STATUS.search(line)) and not CONVERSIONS.fullmatch(path) and not SIGNATURE.search(line)


class StatusRules(unittest.TestCase):
    def test_grpc_status_is_made_at_the_edge_only(self):
        for path in tracked.files("*.cc", "*.h"):
            if path.startswith("tests/") or path.endswith("_test.cc"):
                continue
            for number, line in enumerate(tracked.read(path).splitlines(), 1):
                self.assertFalse(misplaced(path, line), f"{path}:{number}: {line.strip()}")

    def test_catches_a_status_made_elsewhere(self):
        self.assertTrue(misplaced("server/service.cc", '  return grpc::Status(grpc::StatusCode::NOT_FOUND, "no");'))
        self.assertTrue(misplaced("storage/store.cc", "  return grpc::Status::OK;"))
        self.assertFalse(misplaced("server/grpc_status.cc", "  return grpc::Status::OK;"))
        self.assertFalse(misplaced("server/service.h", "  grpc::Status Save(grpc::ServerContext* context,"))
        self.assertFalse(misplaced("client/call.cc", "  const grpc::Status status = stream->Finish();"))


if __name__ == "__main__":
    unittest.main()
