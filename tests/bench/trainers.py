"""32 trainers that save at once beside one that saves alone."""

import statistics

from measure import Result, alternate, at_least
from programs import Ckptd, Product, tensors_of

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

    one, many = "one trainer", f"{TRAINERS} trainers"
    sides = {one: lambda: trainers(one, 1, setting.mib), many: lambda: trainers(many, TRAINERS, share)}
    alternate(result, setting.rounds, sides)
    result.ratio("throughput: all / one alone", f"{many}: in all", f"{one}: in all", at_least(0.9))
    result.ratio("throughput: the slowest / the mean", f"{many}: the slowest", f"{many}: mean", at_least(0.5))
    return result
