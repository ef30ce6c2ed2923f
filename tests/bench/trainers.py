"""32 trainers that save at once beside one that saves alone, and the floor with as many streams."""

import statistics

from measure import Result, alternate, at_least
from programs import Ckptd, Product, floor_client, floor_server, tensors_of

TRAINERS = 32


def measure(setting):
    result = Result(f"{TRAINERS} trainers at once")
    share = max(16, setting.mib // 8 // 16 * 16)
    result.note(f"one saves {setting.mib} MiB; each of {TRAINERS} saves {share} MiB")

    def trainers(name, count, mib):
        with Ckptd(setting.folder) as server:
            products = [Product("save", server.address, f"trainer-{i:04}", *tensors_of(mib), 1) for i in range(count)]
            for product in products:
                product.begin()
            seconds = [product.end()["saves"][0]["seconds"] for product in products]
        result.add(f"{name}: in all", count * mib / max(seconds), "MiB/s")
        if count > 1:
            result.add(f"{name}: mean", statistics.mean(mib / each for each in seconds), "MiB/s")
            result.add(f"{name}: the slowest", mib / max(seconds), "MiB/s")

    def floor(name, streams, mib):
        with floor_server(setting.folder) as address:
            result.add(f"{name}: in all", mib / floor_client("save", address, mib, streams), "MiB/s")

    one, many = "one trainer", f"{TRAINERS} trainers"
    floor_two, floor_many = "floor, two streams", f"floor, {TRAINERS} streams"
    sides = {
        one: lambda: trainers(one, 1, setting.mib),
        many: lambda: trainers(many, TRAINERS, share),
        floor_two: lambda: floor(floor_two, 2, setting.mib),
        floor_many: lambda: floor(floor_many, TRAINERS, TRAINERS * share),
    }
    alternate(result, setting.rounds, sides)
    result.ratio("throughput: all / one alone", f"{many}: in all", f"{one}: in all", at_least(0.9))
    result.ratio("throughput: all / floor with as many streams", f"{many}: in all", f"{floor_many}: in all")
    result.ratio("throughput: floor, many streams / two", f"{floor_many}: in all", f"{floor_two}: in all")
    result.ratio("throughput: the slowest / the mean", f"{many}: the slowest", f"{many}: mean", at_least(0.5))
    return result
