"""The most memory of server and clients, for one state, and for 32 clients at once."""

from measure import Result, alternate, at_most
from programs import Ckptd, Product, peak_bytes, reset_peak, tensors_of

CLIENTS = 32
MIB = 1 << 20


def measure(setting):
    result = Result("Memory")
    result.note("VmHWM: what is mapped counts; of a client what it took beyond the state and its own size before")

    share = max(64, setting.mib // CLIENTS // 16 * 16)  # enough that a server could hold too much of it
    result.note(f"one client has {setting.mib} MiB; each of {CLIENTS} has {share} MiB")

    def clients(count):
        """So many at once: they save, and then they restore."""
        shape = tensors_of(setting.mib if count == 1 else share)
        name = "one client" if count == 1 else f"{count} clients"
        with Ckptd(setting.folder) as server:
            for what, words in (("save", [1]), ("restore", [])):
                products = [Product(what, server.address, f"run-{i:04}", *shape, *words) for i in range(count)]
                reset_peak(server.pid)
                for product in products:
                    product.begin()
                beyond = max(product.end()["memory_bytes"] for product in products)
                result.add(f"{name}, {what}: ckptd", peak_bytes(server.pid) / MIB, "MiB", at_most(512))
                result.add(f"{name}, {what}: client beyond the state", beyond / MIB, "MiB", at_most(256))

    alternate(
        result, setting, {"one client": lambda: clients(1), f"{CLIENTS} clients": lambda: clients(CLIENTS)}
    )
    return result
