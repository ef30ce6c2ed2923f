"""The protocol as a stranger meets it: a short client in another language, and all that one can send wrongly."""

import hashlib
import os
import queue
import struct
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

import grpc
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/harness"))
from server import Server  # noqa: E402

work = tempfile.TemporaryDirectory(prefix="ckpt-wire-")
protos = [str(p) for p in (ROOT / "proto/ckpt/v1").glob("*.proto")]
include = str(Path(protoc.__file__).parent / "_proto")
if protoc.main(["protoc", f"-I{ROOT / 'proto'}", f"-I{include}", f"--python_out={work.name}", f"--grpc_python_out={work.name}", *protos]):
    sys.exit("protoc failed")
sys.path.insert(0, work.name)
from ckpt.v1 import checkpoint_pb2, service_pb2 as pb, service_pb2_grpc as rpc, state_pb2 as st  # noqa: E402

CHUNK = 1 << 20


def scalar(text):
    return st.Scalar(str_value=text.encode())


def node(kind, key=None, **fields):
    out = st.StateNode(kind=kind, **fields)
    if key is not None:
        out.key.CopyFrom(scalar(key))
    return out


def tensor(path="model.w", shape=(CHUNK,), **fields):
    return st.Tensor(path=path, component=path.split(".")[0], dtype=st.DTYPE_UINT8, shape=shape, **fields)


def tree(paths, first=0):
    """{component: {name: tensor}} over tensors numbered as they stand in `paths`."""
    components = {}
    for number, path in enumerate(paths):
        component, name = path.split(".", 1)
        components.setdefault(component, []).append((name, first + number))
    nodes = [node(st.NODE_KIND_DICT, child_count=len(components))]
    for component, leaves in components.items():
        nodes.append(node(st.NODE_KIND_DICT, component, child_count=len(leaves)))
        nodes += [node(st.NODE_KIND_TENSOR, name, tensor=number) for name, number in leaves]
    return pb.SaveRequest(state=pb.StatePart(nodes=nodes))


def begin(run="r", epoch=1, **fields):
    return pb.SaveRequest(begin=pb.SaveBegin(run=run, epoch=epoch, attempt_key=fields.pop("attempt_key", os.urandom(16)), **fields))


def tensors(*items):
    return pb.SaveRequest(tensors=pb.TensorBatch(tensors=items))


def chunk(payload, fingerprint=b""):
    return pb.SaveRequest(chunk=pb.ChunkUpload(payload=payload, fingerprint=fingerprint))


def never_ending(messages):
    """Sends these, and then neither more nor the end."""
    yield from messages
    threading.Event().wait(60)


COMMIT = pb.SaveRequest(commit=pb.SaveCommit())
W = tree(["model.w"])


class WireTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(os.environ["CKPTD"], Path(work.name) / "store", Path(work.name) / "ckptd.log").start()
        cls.channel = grpc.insecure_channel(cls.server.address)
        cls.stub = rpc.CheckpointServiceStub(cls.channel)

    @classmethod
    def tearDownClass(cls):
        cls.channel.close()
        assert cls.server.stop() == 0

    def save(self, *messages):
        """All written, then all read: the last answer."""
        return list(self.stub.Save(iter(messages), timeout=60))[-1].committed.checkpoint

    def restore(self, reference):
        out = bytearray()
        for answer in self.stub.Restore(iter([pb.RestoreRequest(begin=pb.RestoreBegin(reference=reference))]), timeout=60):
            if answer.WhichOneof("message") == "chunk":
                out[answer.chunk.index * CHUNK:answer.chunk.index * CHUNK + len(answer.chunk.payload)] = answer.chunk.payload
        return bytes(out)

    def refused(self, code, reason, *messages):
        """The call fails so, the server stays up, and nothing is visible."""
        with self.assertRaises(grpc.RpcError) as caught:
            self.save(*messages)
        error = caught.exception
        trailers = dict(error.trailing_metadata() or ())
        self.assertEqual((error.code().name, trailers.get("ckpt-reason")), (code, reason), error.details())
        runs = self.stub.ListRuns(pb.ListRunsRequest(), timeout=10).runs
        self.assertNotIn("refused", [r.name for r in runs])
        return error.details()

    def when_there_is_room(self, call):
        """What call() returns, once the server has a stream for it: one that was given up is gone a little later."""
        while True:
            try:
                return call()
            except grpc.RpcError as error:
                if dict(error.trailing_metadata() or ()).get("ckpt-reason") != "TOO_MANY_STREAMS":
                    raise

    def test_ten_lines_save_and_restore(self):
        payload = os.urandom(CHUNK + 100_000)
        made = self.save(begin("ten-lines", 3), tensors(tensor(shape=[len(payload)])),
                         chunk(payload[:CHUNK]), chunk(payload[CHUNK:]), W, COMMIT)
        self.assertEqual((made.run, made.epoch, made.version, made.logical_bytes), ("ten-lines", 3, 1, len(payload)))
        self.assertEqual(self.restore("ten-lines:latest"), payload)

    def test_messages_out_of_order(self):
        b, t, c = begin("refused"), tensors(tensor()), chunk(os.urandom(CHUNK))
        self.refused("FAILED_PRECONDITION", "OUT_OF_ORDER", t)
        self.refused("FAILED_PRECONDITION", "OUT_OF_ORDER", b, b)
        self.refused("INVALID_ARGUMENT", "WRONG_SIZE", b, c)
        self.refused("FAILED_PRECONDITION", "OUT_OF_ORDER", b, t, t)
        self.refused("FAILED_PRECONDITION", "OUT_OF_ORDER", b, t, W)
        self.refused("FAILED_PRECONDITION", "OUT_OF_ORDER", b, t, COMMIT)
        self.refused("FAILED_PRECONDITION", "OUT_OF_ORDER", b, t, c, COMMIT)
        self.refused("FAILED_PRECONDITION", "OUT_OF_ORDER", b, t, c, W, t)
        self.refused("FAILED_PRECONDITION", "OUT_OF_ORDER", b, pb.SaveRequest())
        self.refused("CANCELLED", "STREAM_ENDED", b, t)

    def test_a_message_after_commit_does_not_undo_it(self):
        with self.assertRaises(grpc.RpcError) as caught:
            self.save(begin("after-commit"), tensors(tensor()), chunk(os.urandom(CHUNK)), W, COMMIT, COMMIT)
        self.assertEqual(dict(caught.exception.trailing_metadata())["ckpt-reason"], "OUT_OF_ORDER")
        self.assertEqual(self.stub.GetCheckpoint(pb.GetCheckpointRequest(reference="after-commit@1")).checkpoint.version, 1)

    def test_tensors_whose_bytes_do_not_fit(self):
        b = begin("refused")
        self.refused("INVALID_ARGUMENT", "WRONG_SIZE", b, tensors(tensor()), chunk(os.urandom(CHUNK - 1)))
        self.refused("INVALID_ARGUMENT", "WRONG_SIZE", b, tensors(tensor()), chunk(os.urandom(CHUNK)), chunk(b"x"))
        self.refused("INVALID_ARGUMENT", "WRONG_SIZE", b, tensors(tensor(shape=[100])))
        self.refused("INVALID_ARGUMENT", "WRONG_SIZE", b, tensors(tensor(shape=[100], inline_data=b"x" * 99)))
        self.refused("INVALID_ARGUMENT", "SHAPE_TOO_LARGE", b, tensors(tensor(shape=[2**40, 2**40])))
        self.refused("INVALID_ARGUMENT", "TENSOR_TOO_LARGE", b, tensors(tensor(shape=[2**50])))
        self.refused("INVALID_ARGUMENT", "UNKNOWN_DTYPE", b, tensors(st.Tensor(path="a", dtype=99)))
        self.refused("INVALID_ARGUMENT", "BAD_TENSOR", b, tensors(tensor(strides=[2])))
        self.refused("INVALID_ARGUMENT", "BAD_TENSOR", b, tensors(tensor(view_of=7)))

    def test_a_wrong_fingerprint(self):
        text = self.refused("DATA_LOSS", "WRONG_FINGERPRINT", begin("refused"), tensors(tensor()), chunk(os.urandom(CHUNK), b"x" * 16))
        self.assertIn("model.w", text)

    def test_a_message_that_is_too_large(self):
        with self.assertRaises(grpc.RpcError) as caught:
            self.save(begin("refused"), tensors(tensor()), chunk(bytes(5 << 20)))
        self.assertEqual(caught.exception.code().name, "RESOURCE_EXHAUSTED")

    def test_names(self):
        for run in ("", "a\0b", "a/../b", "../a", "a//b", "a\nb", "x" * 201, "x" * 10_000, "/a", "ä"):
            self.refused("INVALID_ARGUMENT", "BAD_NAME", begin(run))
        self.refused("INVALID_ARGUMENT", "BAD_NAME", begin("refused", domain="a/b"))
        self.refused("INVALID_ARGUMENT", "BAD_NAME", begin("refused", metrics=[checkpoint_pb2.Metric(name="a:b")]))
        self.refused("INVALID_ARGUMENT", "BAD_NAME", begin("refused"), tensors(tensor(path="model.\n")))
        self.refused("INVALID_ARGUMENT", "BAD_NAME", begin("refused"), tensors(tensor(path="model." + "x" * 10_000)))
        self.refused("INVALID_ARGUMENT", "BAD_ATTEMPT_KEY", begin("refused", attempt_key=b"short"))

    def test_a_state_nested_10000_deep(self):
        nodes = [node(st.NODE_KIND_LIST, child_count=1)] * 10_000 + [node(st.NODE_KIND_LIST)]
        self.refused("INVALID_ARGUMENT", "STATE_TOO_DEEP", begin("refused"), pb.SaveRequest(state=pb.StatePart(nodes=nodes)), COMMIT)

    def test_a_tree_that_lies(self):
        t, c, b = tensors(tensor()), chunk(os.urandom(CHUNK)), begin("refused")
        self.refused("INVALID_ARGUMENT", "BAD_STATE", b, t, c, tree(["model.v"]), COMMIT)
        self.refused("INVALID_ARGUMENT", "BAD_STATE", b, t, c, tree(["model.w"], first=5), COMMIT)
        empty = pb.SaveRequest(state=pb.StatePart(nodes=[node(st.NODE_KIND_DICT)]))
        self.refused("INVALID_ARGUMENT", "BAD_STATE", b, t, c, empty, COMMIT)
        huge = pb.SaveRequest(state=pb.StatePart(nodes=[node(st.NODE_KIND_DICT, child_count=2**63)]))
        self.refused("FAILED_PRECONDITION", "OUT_OF_ORDER", b, t, c, huge, COMMIT)

    def test_more_components_than_a_state_has(self):
        parts = [m for i in range(65) for m in (tensors(tensor(f"c{i}.w", shape=[4096])), chunk(os.urandom(4096)))]
        self.refused("INVALID_ARGUMENT", "BAD_STATE", begin("refused"), *parts)

    def test_a_citation_without_a_promise(self):
        payload = os.urandom(CHUNK)
        self.save(begin("owner"), tensors(tensor()), chunk(payload), W, COMMIT)
        digest = hashlib.sha256(payload).digest()
        cite = pb.SaveRequest(citations=pb.Citations(digests=digest))
        self.refused("FAILED_PRECONDITION", "CHUNK_NOT_PINNED", begin("refused"), tensors(tensor()), cite)
        self.refused("INVALID_ARGUMENT", "BAD_DIGESTS", begin("refused"), tensors(tensor()), pb.SaveRequest(citations=pb.Citations(digests=b"x")))
        for digests, reason, code in ((digest, "CHUNK_NOT_PINNED", "FAILED_PRECONDITION"), (b"x", "BAD_DIGESTS", "INVALID_ARGUMENT")):
            batch = pb.SaveRequest(tensors=pb.TensorBatch(tensors=[tensor()], cited_digests=digests))
            self.refused(code, reason, begin("refused"), batch)
        have = pb.SaveRequest(have=pb.Have(digests=digest))
        self.assertEqual(self.save(begin("citing"), have, tensors(tensor()), cite, W, COMMIT).new_bytes, 0)
        batch = pb.SaveRequest(tensors=pb.TensorBatch(tensors=[tensor()], cited_digests=digest))
        self.assertEqual(self.save(begin("citing"), have, batch, W, COMMIT).new_bytes, 0)
        self.refused("INVALID_ARGUMENT", "WRONG_SIZE", begin("refused"), have, pb.SaveRequest(tensors=pb.TensorBatch(cited_digests=digest)))

    def test_writing_all_and_only_then_reading(self):
        # A session with many acked chunks, and many questions: their answers wait until they are read.
        count, key = 20_000, os.urandom(16)
        data = os.urandom(4096 * count)
        chunks = [data[i:i + 4096] for i in range(0, len(data), 4096)]
        b = begin("all-then-read", attempt_key=key)
        self.refused("CANCELLED", "STREAM_ENDED", b, *[m for i, c in enumerate(chunks) for m in (tensors(tensor(f"model.t{i}", shape=[4096])), chunk(c))])
        digests = [hashlib.sha256(c).digest() for c in chunks]
        written = threading.Event()

        def everything():
            yield b
            yield from (pb.SaveRequest(have=pb.Have(digests=d)) for d in digests[:16_000])
            for i, d in enumerate(digests):
                yield tensors(tensor(f"model.t{i}", shape=[4096]))
                yield pb.SaveRequest(citations=pb.Citations(digests=d))
            yield tensors(tensor("model.large", shape=[64 * CHUNK]))  # more than is read ahead
            yield from (chunk(bytes([i]) * CHUNK) for i in range(64))
            yield tree([*(f"model.t{i}" for i in range(count)), "model.large"])
            yield COMMIT
            written.set()

        # With windows that do not grow.
        channel = grpc.insecure_channel(self.server.address, options=[("grpc.http2.bdp_probe", 0)])
        self.addCleanup(channel.close)
        call = rpc.CheckpointServiceStub(channel).Save(everything(), timeout=60)
        self.assertTrue(written.wait(30), "the server stopped reading")
        answers = list(call)
        self.assertEqual(sum(len(a.acked.chunks) for a in answers), count)
        self.assertEqual(sum(a.WhichOneof("message") == "have" for a in answers), 16_000)
        self.assertGreaterEqual(answers[-1].committed.checkpoint.new_bytes, len(data))

    def test_who_waits_for_an_ack_is_told_when_there_will_be_none(self):
        key, messages = os.urandom(16), queue.Queue()
        b = begin("refused", attempt_key=key)
        for message in (b, tensors(tensor()), chunk(os.urandom(CHUNK))):
            messages.put(message)
        first = self.stub.Save(iter(messages.get, None), timeout=30)
        while next(first).WhichOneof("message") != "ack":
            pass
        second = self.stub.Save(never_ending([b]), timeout=30)
        next(second)  # has taken the save over
        messages.put(tensors(tensor("model.v")))
        messages.put(chunk(os.urandom(CHUNK)))
        with self.assertRaises(grpc.RpcError) as caught:
            next(first)
        self.assertEqual(dict(caught.exception.trailing_metadata())["ckpt-reason"], "FENCED")
        messages.put(None)
        second.cancel()

    def test_bytes_that_are_no_message(self):
        call = self.channel.stream_stream("/ckpt.v1.CheckpointService/Save")
        for data in (b"\xff" * 100, b"\x22\xff\xff\xff\xff\x0f", b"\x0a\x05abc", struct.pack("<Q", 2**64 - 1)):
            with self.assertRaises(grpc.RpcError) as caught:
                list(call(iter([data]), timeout=10))
            self.assertIn(caught.exception.code().name, ("INVALID_ARGUMENT", "FAILED_PRECONDITION"))

    def test_many_tiny_tensors(self):
        count = 100_000
        names = [f"model.t{i}" for i in range(count)]
        batches = [tensors(*(tensor(path=n, shape=[8], inline_data=struct.pack("<Q", i + j)) for j, n in enumerate(names[i:i + 10_000])))
                   for i in range(0, count, 10_000)]
        nodes = tree(names).state.nodes
        parts = [pb.SaveRequest(state=pb.StatePart(nodes=nodes[i:i + 10_000])) for i in range(0, len(nodes), 10_000)]
        self.assertEqual(self.save(begin("tiny"), *batches, *parts, COMMIT).tensor_count, count)

    def test_wants_beyond_the_manifest(self):
        self.save(begin("wants"), tensors(tensor()), chunk(os.urandom(CHUNK)), W, COMMIT)
        first = pb.RestoreRequest(begin=pb.RestoreBegin(reference="wants@1", wait_for_want=True))
        for fields in ({"tensor": 9, "chunk_count": 1}, {"first_chunk": 1, "chunk_count": 1}, {"chunk_count": 2**63}):
            with self.assertRaises(grpc.RpcError) as caught:
                list(self.stub.Restore(iter([first, pb.RestoreRequest(want=pb.Want(ranges=[pb.Want.Range(**fields)]))]), timeout=10))
            self.assertEqual(dict(caught.exception.trailing_metadata())["ckpt-reason"], "BAD_WANT")

    def test_streams_that_are_given_up_leave_nothing_behind(self):
        self.save(begin("given-up"), tensors(tensor(shape=[16 * CHUNK])), *[chunk(os.urandom(CHUNK)) for _ in range(16)], W, COMMIT)
        first = pb.RestoreRequest(begin=pb.RestoreBegin(reference="given-up@1"))
        call = self.stub.Restore(iter([first]), timeout=0.3)
        next(iter(call))
        with self.assertRaises(grpc.RpcError) as caught:
            while not call.done():  # reads nothing until its time is up
                threading.Event().wait(0.01)
            list(call)
        self.assertEqual(caught.exception.code().name, "DEADLINE_EXCEEDED")
        def give_up():
            call = self.stub.Save(never_ending([begin("refused")]), timeout=60)
            next(iter(call))
            call.cancel()

        for _ in range(300):  # more than streams may be open at once
            self.when_there_is_room(give_up)
        restored = [self.when_there_is_room(lambda name=name: self.restore(name)) for name in ("given-up@1", "given-up@1#1")]
        self.assertEqual(restored[0], restored[1])

    def test_more_streams_than_the_limit(self):
        calls = [self.stub.Save(never_ending([begin("refused")]), timeout=60) for _ in range(256)]
        try:
            for call in calls:
                next(iter(call))
            self.refused("UNAVAILABLE", "TOO_MANY_STREAMS", begin("refused"))
        finally:
            for call in calls:
                call.cancel()
        reason = "TOO_MANY_STREAMS"
        while reason == "TOO_MANY_STREAMS":  # until there is room for the next test
            with self.assertRaises(grpc.RpcError) as caught:
                self.save(begin("refused"))
            reason = dict(caught.exception.trailing_metadata())["ckpt-reason"]
        self.assertEqual(reason, "STREAM_ENDED")

    def test_reflection_and_health(self):
        for service in (b"", b"ckpt.v1.CheckpointService"):
            asked = bytes([0x0A, len(service)]) + service
            health = self.channel.unary_unary("/grpc.health.v1.Health/Check")(asked, timeout=10)
            self.assertEqual(health, b"\x08\x01")
        listed = self.channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
        self.assertIn(b"ckpt.v1.CheckpointService", next(iter(listed(iter([b"\x3a\x00"]), timeout=10))))


class IdleTest(unittest.TestCase):
    """Clients that keep a stream open and do nothing."""

    def start(self, *words):
        server = Server(os.environ["CKPTD"], Path(work.name) / "idle", Path(work.name) / "idle.log", words=words).start()
        self.addCleanup(lambda: server.process.poll() is not None or server.kill())
        channel = grpc.insecure_channel(server.address)
        self.addCleanup(channel.close)
        return server, rpc.CheckpointServiceStub(channel)

    def idle_streams(self, stub):
        payload = os.urandom(64 * CHUNK)
        messages = [begin("run"), tensors(tensor(shape=[len(payload)])),
                    *(chunk(payload[i:i + CHUNK]) for i in range(0, len(payload), CHUNK)), W, COMMIT]
        list(stub.Save(iter(messages), timeout=60))
        saving = stub.Save(never_ending([begin("idle")]), timeout=60)
        next(iter(saving))
        wanting = stub.Restore(never_ending([pb.RestoreRequest(begin=pb.RestoreBegin(reference="run@1", wait_for_want=True))]), timeout=60)
        next(iter(wanting))
        taking_nothing = stub.Restore(iter([pb.RestoreRequest(begin=pb.RestoreBegin(reference="run@1"))]), timeout=60)
        next(iter(taking_nothing))
        silent = [stub.Save(never_ending([]), timeout=60), stub.Restore(never_ending([]), timeout=60)]
        return [saving, wanting, *silent], taking_nothing

    def assert_ended(self, streams, taking_nothing, reasons=("STREAM_IDLE",)):
        for stream in streams:
            with self.assertRaises(grpc.RpcError) as caught:
                list(stream)
            self.assertEqual(caught.exception.code().name, "UNAVAILABLE")
            self.assertIn(dict(caught.exception.trailing_metadata()).get("ckpt-reason"), reasons)
        time.sleep(2)  # its time began when it was sent the last message
        with self.assertRaises(grpc.RpcError) as caught:
            list(taking_nothing)
        self.assertIn(caught.exception.code().name, ("CANCELLED", "UNAVAILABLE"))  # its connection may be gone too

    def test_they_end_after_the_time_of_a_lease(self):
        _, stub = self.start("--lease-s", "1")
        self.assert_ended(*self.idle_streams(stub))

    def test_they_hold_up_no_server_that_stops(self):
        server, stub = self.start("--grace-s", "50")
        ended = self.idle_streams(stub)
        self.assertEqual(server.stop(timeout=20), 0)
        self.assert_ended(*ended, reasons=("STREAM_IDLE", "SERVER_STOPS"))  # those that said nothing may come late


if __name__ == "__main__":
    unittest.main(verbosity=2)
