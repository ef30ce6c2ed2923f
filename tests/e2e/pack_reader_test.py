"""Reads the packs of a store by docs/format.md alone, without its catalog and without our code: all that was saved is there.

usage: pack_reader_test.py BIN-DIR
"""

import hashlib
import random
import shutil
import struct
import sys
import tempfile
import zlib
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/harness"))
import state_file  # noqa: E402
from server import Ctl, Server  # noqa: E402

CHUNK, PART, ROOT_RECORD, VERSION_FACT, COMMIT_FACT = 1, 2, 3, 4, 5


def compile_protos(folder):
    protos = [str(p) for p in (ROOT / "proto/ckpt/v1").glob("*.proto")]
    include = Path(protoc.__file__).parent / "_proto"
    assert protoc.main(["protoc", f"-I{ROOT / 'proto'}", f"-I{include}", f"--python_out={folder}", *protos]) == 0
    sys.path.insert(0, folder)
    from ckpt.v1 import storage_pb2

    return storage_pb2


def records(path):
    """(kind, digest, raw bytes) of each whole record of a pack; each check sum and digest must fit."""
    data = path.read_bytes()
    magic, version, pack_id, length, domain, crc = struct.unpack_from("<8sI16sI64sI", data)
    assert (magic, version) == (b"CKPTPACK", 1) and crc == zlib.crc32(data[:96]), path
    assert path.name == pack_id.hex() + ".pack" and path.parent.name == domain[:length].decode()
    at, ordinal = 4096, 0
    while at + 112 <= len(data):
        magic, kind, codec, number, raw, stored, fingerprint, digest = struct.unpack_from("<4sBB2xIII16s32s", data, at)
        if magic == bytes(4):
            assert not any(data[at:]) and len(data) - at < 4096, (path, at)  # the rest of a block
            break
        assert magic == b"CKR1" and struct.unpack_from("<I", data, at + 108)[0] == zlib.crc32(data[at:at + 108]), (path, at)
        assert codec == 0 and raw == stored and number == ordinal, (path, at)
        payload = data[at + 112:at + 112 + stored]
        if len(payload) < stored:
            break
        assert hashlib.sha256(payload).digest() == digest and any(fingerprint), (path, at)
        yield kind, digest, payload
        at, ordinal = at + 112 + stored, ordinal + 1


class Packs:
    """What all packs of a store say together."""

    def __init__(self, folder, messages):
        self.messages, self.by_digest, self.versions, self.commits = messages, {}, {}, {}
        for path in Path(folder).glob("*/*.pack"):
            for kind, digest, payload in records(path):
                if kind == VERSION_FACT:
                    self.versions[digest] = messages.VersionFact.FromString(payload).checkpoint
                elif kind == COMMIT_FACT:
                    fact = messages.CommitFact.FromString(payload)
                    self.commits[fact.version_fact] = fact
                else:
                    self.by_digest[kind, digest] = payload

    def checkpoints(self):
        """{(run, epoch, version): {path: SHA-256 of the tensor's bytes}} of all that were committed."""
        return {(self.versions[f].run, self.versions[f].epoch, commit.version): self.tensors(self.versions[f].manifest_digest)
                for f, commit in self.commits.items()}

    def tensors(self, manifest_digest):
        root = self.messages.ManifestRoot.FromString(self.by_digest[ROOT_RECORD, manifest_digest])
        tensors = []
        for part in root.parts:
            if part.tensors:
                assert part.first == len(tensors)
                tensors += self.messages.ManifestPart.FromString(self.by_digest[PART, part.digest]).tensors
        assert len(tensors) == root.tensor_count
        return {t.path: hashlib.sha256(self.bytes_of(t)).hexdigest() for t in tensors}

    def bytes_of(self, tensor):
        digests = b"".join(box.digests for box in tensor.boxes)
        return tensor.inline_data + b"".join(self.by_digest[CHUNK, digests[i:i + 32]] for i in range(0, len(digests), 32))


def save_some(binaries, folder, rng):
    """Saves versions of two runs over a restart; {(run, epoch, version): {path: digest}} of them."""
    saved = {}
    with Server(binaries / "ckptd", Path(folder, "store"), Path(folder, "ckptd.log")) as server:
        ctl = Ctl(binaries / "ckptctl", server.address)
        tensors = {f"model.{i}": rng.randbytes(size) for i, size in enumerate((0, 7, 4095, 4096, 1 << 20, (3 << 20) + 5))}
        for run, epoch in (("a", 1), ("team/b", 1), ("a", 2), ("a", 1), ("team/b", 5)):
            tensors["model.1"] = rng.randbytes(900_000)
            path = Path(folder, "state.safetensors")
            state_file.write(path, tensors)
            entry = ctl("save", run, path, "--epoch", epoch)
            digests = {name: digest for name, (_, _, digest) in state_file.digests(path).items()}
            saved[run, epoch, entry["version"]] = digests
            if len(saved) == 3:
                server.kill()
                server.start()
    return saved


def main():
    rng = random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        messages = compile_protos(folder)
        saved = save_some(Path(sys.argv[1]), folder, rng)
        shutil.rmtree(Path(folder, "store/catalog"))
        found = Packs(Path(folder, "store/packs"), messages).checkpoints()
        assert found == saved, (sorted(found), sorted(saved))
    print(f"{len(saved)} checkpoints read from the packs alone")


if __name__ == "__main__":
    main()
