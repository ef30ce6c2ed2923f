"""A catalog of --size * 10 million chunks: haves, start-up, lists, states of many tensors."""

import hashlib
import itertools
import os
import queue
import random
import statistics

import grpc

import page_cache
from measure import Result, alternate, at_most, timed, timed_value
from programs import BENCH, Ckptd, Product, run
from protocol import calls, service, state

# With --size 1.
CHUNKS = 10_000_000
RUNS = 10_000
CHECKPOINTS = 10_000
TENSORS = 100_000
DIGESTS = 10_000  # of one have

HAVES = 100  # of each kind in a round
CHUNK_BYTES = 1 << 20
MAX_DIGESTS = 16384  # that one message may have
NODES = 5000  # in one message


def digests_of(numbers):
    """As fill_catalog.cc has them."""
    return [hashlib.sha256(number.to_bytes(8, "little")).digest() for number in numbers]


class SaveCall:
    """A save, message by message."""

    epochs = itertools.count(1)

    def __init__(self, stub):
        self.requests = queue.SimpleQueue()
        self.answers = stub.Save(iter(self.requests.get, None))
        self.send(begin=service.SaveBegin(run="bench", epoch=next(self.epochs), attempt_key=os.urandom(16)))
        self.answer("begun")

    def send(self, **message):
        self.requests.put(service.SaveRequest(**message))

    def answer(self, kind):
        """The next one of this kind; acks are passed over."""
        return next(getattr(answer, kind) for answer in self.answers if answer.WhichOneof("message") == kind)

    def have(self, digests):
        """What is missing, a bit for each."""
        self.send(have=service.Have(digests=b"".join(digests)))
        return self.answer("have").missing

    def close(self):
        self.answers.cancel()


def next_to_each_other(chunks, count):
    return range(start := random.randrange(chunks - count + 1), start + count)


def all_over_the_store(chunks, count):
    return random.sample(range(chunks), count)


def none_there(chunks, count):
    return range(start := chunks + random.randrange(1 << 40), start + count)


def ask_have(stub, kind, chunks, count):
    """How long it takes to say what there is of so many chunks, to a save that has just begun. Milliseconds."""
    digests = digests_of(kind(chunks, count))
    call = SaveCall(stub)
    seconds, missing = timed_value(lambda: call.have(digests))
    call.close()
    if int.from_bytes(missing, "little").bit_count() != (count if kind is none_there else 0):
        raise AssertionError(f"have, {kind.__name__}: a wrong answer")
    return seconds * 1000


def ask_haves(result, stub, chunks, count):
    """With the catalog's files in the page cache. p99 is the nearest rank."""
    for kind in (next_to_each_other, all_over_the_store, none_there):
        times = sorted(ask_have(stub, kind, chunks, count) for _ in range(HAVES))
        name = f"have of {count} chunks, {kind.__name__.replace('_', ' ')}"
        result.add(f"{name}: p50", statistics.median(times), "ms")
        result.add(f"{name}: p99", times[-(-len(times) * 99 // 100) - 1], "ms", at_most(150))


def turn_pages(result, stub):
    """The slowest page of each list."""
    lists = {
        "runs": lambda **page: stub.ListRuns(service.ListRunsRequest(**page)),
        "checkpoints of a run": lambda **page: stub.ListCheckpoints(service.ListCheckpointsRequest(run="long", **page)),
    }
    for name, list_page in lists.items():
        for size in (100, 1000):
            token, times = None, []
            while token != "":
                seconds, page = timed_value(
                    lambda list_page=list_page, size=size, token=token: list_page(page_size=size, page_token=token)
                )
                times.append(seconds * 1000)
                token = page.next_page_token
            result.add(f"{name}: a page of {size}, the slowest of {len(times)}", max(times), "ms", at_most(200))


def node(kind, key=None, **fields):
    return state.StateNode(kind=kind, key=key and state.Scalar(str_value=key.encode()), **fields)


def commit_many(stub, numbers):
    """The commit of a checkpoint of a tensor for each of these chunks, which are all there. Seconds."""
    call = SaveCall(stub)
    digests = digests_of(numbers)
    count = len(numbers)
    for first in range(0, count, MAX_DIGESTS):
        call.have(digests[first : first + MAX_DIGESTS])
    for number, digest in enumerate(digests):
        tensor = state.Tensor(
            path=f"model.weight{number}", component="model", dtype=state.DTYPE_UINT8, shape=[CHUNK_BYTES]
        )
        call.send(tensors=service.TensorBatch(tensors=[tensor]))
        call.send(citations=service.Citations(digests=digest))
    nodes = [node(state.NODE_KIND_DICT, child_count=1), node(state.NODE_KIND_DICT, "model", child_count=count)]
    nodes += [node(state.NODE_KIND_TENSOR, f"weight{number}", tensor=number) for number in range(count)]
    for first in range(0, len(nodes), NODES):
        call.send(state=service.StatePart(nodes=nodes[first : first + NODES]))
    call.have(digests[:1])  # once it is answered, all that came before has been taken
    call.send(commit=service.SaveCommit())
    return timed(lambda: call.answer("committed"))


def measure(setting):
    def scaled(number):
        return max(1, int(number * setting.gib))

    chunks, tensors = scaled(CHUNKS), scaled(TENSORS)
    result = Result(
        f"A catalog of {chunks} chunks, {scaled(RUNS)} runs, and one run of {scaled(CHECKPOINTS)} checkpoints"
    )
    store = setting.folder / "store"
    fill = [BENCH / "fill_catalog", store, chunks, scaled(RUNS), scaled(CHECKPOINTS)]
    result.add("filling it", timed(lambda: run(*fill)) / 60, "min")
    files = [file.stat().st_size for file in (store / "catalog").iterdir()]
    result.add("the catalog's files", sum(files) / 2**20, "MiB")
    with Ckptd(setting.folder) as ckptd:

        def start_again(end):
            end()
            page_cache.load(store / "catalog")
            return timed(ckptd.server.start)

        def start_cold():
            ckptd.server.stop()
            page_cache.drop(store / "catalog")
            return timed(ckptd.server.start)

        starts = {
            "start": lambda: start_again(ckptd.server.stop),
            "start after kill -9": lambda: start_again(ckptd.server.kill),
        }
        if not page_cache.is_memory(store):
            result.note(page_cache.HOW)
            result.note(
                "all else with the catalog's files in the page cache: the first have after a cold start stands apart, "
                "as it reads thousands of blocks from the disk"
            )
            starts["start, cold"] = start_cold

        def ask():
            count = min(scaled(DIGESTS), chunks)
            if not page_cache.is_memory(store):
                start_cold()
            with grpc.insecure_channel(ckptd.address) as channel:
                stub = calls.CheckpointServiceStub(channel)
                if not page_cache.is_memory(store):
                    name = f"have of {count} chunks, next to each other: the first after a cold start"
                    result.add(name, ask_have(stub, next_to_each_other, chunks, count), "ms")
                page_cache.load(store / "catalog")
                ask_haves(result, stub, chunks, count)
                turn_pages(result, stub)
                for kind in (next_to_each_other, all_over_the_store):
                    name = f"commit of {tensors} tensors, {kind.__name__.replace('_', ' ')}"
                    result.add(name, commit_many(stub, kind(chunks, min(tensors, chunks))), goal=at_most(1))
            tiny = Product("save", ckptd.address, f"tiny-{next(SaveCall.epochs):06}", tensors, 1, 1)()["saves"][0][
                "seconds"
            ]
            result.add(f"save of {tensors} tensors of 1 KiB", tiny, goal=at_most(3))

        alternate(result, setting, {**starts, "questions": ask})
        for name in starts:
            result.figures[name].goal = at_most(2)
    return result
