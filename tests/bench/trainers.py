"""32 trainers that save at once beside one that saves alone, and the floor with as many streams."""

import statistics

from measure import Result, alternate, at_least
from programs import Ckptd, Product, floor_client, floor_server, tensors_of

TRAINERS = 32


def measure(setting):
    result = Result(f"{TRAINERS} trainers at once")
    share = max(16, setting.mib // 8 // 16 * 16)
    warm = max(16, share // 4 // 16 * 16)
    result.note(f"one saves {setting.mib} MiB; each of {TRAINERS} saves {share} MiB")
    result.note(f"as many have saved {warm} MiB each before: a server that begins finds memory for all of them first")

    def save_at_once(server, names, mib):
        """Seconds of each."""
        products = [Product("save", server.address, name, *tensors_of(mib), 1) for name in names]
        for product in products:
            product.begin()
        return [product.end()["saves"][0]["seconds"] for product in products]

    def trainers(name, count, mib):
        with Ckptd(setting.folder) as server:
            save_at_once(server, [f"warming-{i:04}" for i in range(count)], warm)
            seconds = save_at_once(server, [f"trainer-{i:04}" for i in range(count)], mib)
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
    alternate(result, setting, sides)
    result.ratio("throughput: all / one alone", f"{many}: in all", f"{one}: in all", at_least(0.9))
    result.ratio("throughput: all / floor with as many streams", f"{many}: in all", f"{floor_many}: in all")
    result.ratio("throughput: floor, many streams / two", f"{floor_many}: in all", f"{floor_two}: in all")
    result.ratio("throughput: the slowest / the mean", f"{many}: the slowest", f"{many}: mean", at_least(0.5))
    return result
