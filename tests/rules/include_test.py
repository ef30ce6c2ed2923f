"""Who may include what: the layers of docs/architecture.md."""

import re
import unittest

import tracked

PROTO = (r"ckpt/v1/(state|checkpoint|service|storage)\.pb\.h", r"google/protobuf/.*")
API_PROTO = (r"ckpt/v1/(state|checkpoint)\.pb\.h",)
GRPC = (r"grpc/.*", r"grpcpp/.*", r"ckpt/v1/service\.(grpc\.)?pb\.h", r"google/protobuf/.*")
PUBLIC = (r"ckpt/[a-z_]+\.h",)
ABSL = (r"absl/.*",)
BASE = (r"base/.*", *ABSL, *PROTO)

# Folder: what its files may include besides the C++ library, the system, and (by its full path) its own folder. The
# longest folder that fits counts.
LAYERS = {
    "base": (*ABSL, *PROTO, r"openssl/.*", r"xxhash\.h", r"xxh_x86dispatch\.h", r"spdlog/.*", r"cpuid\.h", r"immintrin\.h"),
    "storage": (*BASE, r"rocksdb/.*", r"spdlog/.*", r"zlib\.h"),
    "server": (*BASE, *GRPC, r"storage/.*", r"spdlog/.*", r"CLI/.*", r"jemalloc/.*"),
    "client": (*BASE, *GRPC, *PUBLIC),
    "client/include": (*ABSL, *PUBLIC, *API_PROTO),
    "client/formats": (*BASE, *PUBLIC, r"client/(storage_views|tensor_strides)\.h", r"zip\.h", r"zlib\.h", r"libdeflate\.h", r"nlohmann/.*"),
    "client/cli": (*ABSL, *PUBLIC, *API_PROTO, r"google/protobuf/.*", r"CLI/.*", r"nlohmann/.*", r"client/cli/.*"),
    "client/python": (*ABSL, *PUBLIC, *API_PROTO, r"nanobind/.*"),
    "client/examples": (*ABSL, *PUBLIC, *API_PROTO, r"CLI/.*", r"client/examples/.*"),
}
TESTS = (r"g(test|mock)/.*", r"tests/.*")

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)
# In angle brackets, these are the system's; any other that ends in .h must be allowed.
SYSTEM = re.compile(r"(sys|linux|arpa|netinet|net)/.*\.h|[a-z0-9_]+|"
                    r"(assert|ctype|dirent|dlfcn|endian|errno|fcntl|fnmatch|glob|inttypes|limits|math|malloc|poll|pthread|"
                    r"sched|signal|spawn|stddef|stdint|stdio|stdlib|string|strings|termios|time|unistd)\.h")


def violations(path, text):
    """The includes of a file that its layer may not have."""
    layer = max((folder for folder in LAYERS if path.startswith(folder + "/")), key=len, default=None)
    if layer is None:
        return []
    allowed = LAYERS[layer] + (re.escape(layer) + r"/.*",)
    if re.search(r"_(test|bench|fixture)\.(cc|h)$|/testing/", path):
        allowed += TESTS
    return [name for bracket, name in INCLUDE.findall(text)
            if not any(re.fullmatch(pattern, name) for pattern in allowed)
            and not (bracket == "<" and SYSTEM.fullmatch(name))]


class IncludeRules(unittest.TestCase):
    def test_layers_include_only_what_they_may(self):
        for path in tracked.files("*.h", "*.cc"):
            with self.subTest(path):
                self.assertEqual(violations(path, tracked.read(path)), [])

    def test_rocksdb_is_met_in_its_engine_only(self):
        for path in tracked.files("*.h", "*.cc"):
            if re.search(r"#include <rocksdb/|\brocksdb::", tracked.read(path)):
                self.assertRegex(path, r"^storage/rocksdb_\w+\.(h|cc)$")

    def test_catches_what_crosses_the_layers(self):
        for path, line in (
            ("base/a.cc", '#include "storage/store.h"'), ("base/a.h", "#include <grpcpp/grpcpp.h>"),
            ("storage/a.cc", "#include <grpcpp/grpcpp.h>"), ("storage/a.cc", '#include "server/server.h"'),
            ("storage/a.cc", '#include "ckpt/v1/service.grpc.pb.h"'), ("client/a.cc", '#include "storage/store.h"'),
            ("client/include/ckpt/a.h", '#include "base/status.h"'), ("client/cli/a.cc", '#include "base/digest.h"'),
            ("client/cli/a.cc", '#include "client/save.h"'), ("client/examples/a.cc", "#include <grpcpp/grpcpp.h>"),
            ("server/a.cc", '#include "ckpt/client.h"'), ("client/formats/a.cc", '#include "client/save.h"'),
        ):
            with self.subTest(path + line):
                self.assertEqual(len(violations(path, line + "\n")), 1)

    def test_lets_what_belongs_together_pass(self):
        for path, line in (
            ("storage/a.cc", '#include "base/status.h"'), ("storage/a.cc", "#include <sys/statvfs.h>"),
            ("storage/a_test.cc", "#include <gtest/gtest.h>"), ("client/cli/a.cc", '#include "ckpt/client.h"'),
            ("server/a.cc", '#include "storage/store.h"'), ("tests/a.cc", '#include "server/server.h"'),
        ):
            with self.subTest(path + line):
                self.assertEqual(violations(path, line + "\n"), [])


if __name__ == "__main__":
    unittest.main()
