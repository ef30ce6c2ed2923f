"""Writes the seeds of the fuzz targets: a folder for each, of small valid inputs.  usage: make_corpus.py FOLDER"""

import pathlib
import struct
import sys
import zlib

import file_seeds
import message_seeds
from message_seeds import message, metric


def pack_records():
    record = struct.pack("<IBBHIII16s32s32s8x", 0x31524B43, 1, 0, 0, 7, 100, 100, b"f" * 16, b"d" * 32, bytes(32))
    yield b"\0" + record + struct.pack("<I", zlib.crc32(record))
    pack = struct.pack("<8sI16sI64s", b"CKPTPACK", 1, b"i" * 16, 7, b"default")
    yield b"\1" + pack + struct.pack("<I", zlib.crc32(pack))


def references():
    names = message((5, metric("loss", 1.0)), (5, metric("acc", 0.5)), (6, message((1, "host"), (2, "a"))))
    for reference in ("run@3", "run/a@-3#2", "r:latest", "r:tag", "r:best", "r:best:val loss", "r:best:loss:min",
                      "r:best:acc:max"):
        yield reference.encode() + b"\0run/a.b-c_d\0default\0" + names


def globs():
    for glob, path in (("*", "a"), ("model.*.weight", "model.0.weight"), ("??c*", "abcd"), ("[a-c]*[!x]", "bz"),
                       ("*a*a*a*a*a*a*a*b", "a" * 100), ("[[:alpha:]]\\*", "x*"), ("", "")):
        yield glob.encode() + b"\0" + path.encode()


def keys():
    for table, size in ((b"M", 16), (b"D", 16), (b"U", 48), (b"Q", 32)):
        yield table + bytes(range(size))
    yield b"Q" + bytes(range(32)) + b"model"


CORPORA = {
    "glob": globs,
    "keys": keys,
    "manifest": message_seeds.manifests,
    "pack_record": pack_records,
    "pickle": file_seeds.pickles,
    "pth_file": file_seeds.pth_files,
    "reference": references,
    "restore_message": message_seeds.restore_messages,
    "restore_request": message_seeds.restore_requests,
    "safetensors": file_seeds.safetensors,
    "save_message": message_seeds.save_messages,
    "save_stream": message_seeds.save_streams,
    "state_walk": message_seeds.trees,
    "wire_reader": message_seeds.wire,
}


def main():
    for name, make in CORPORA.items():
        folder = pathlib.Path(sys.argv[1], name)
        folder.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(make()):
            (folder / f"seed-{number:02}").write_bytes(seed)


if __name__ == "__main__":
    main()
