"""How often a byte of payload is copied in user space, between socket and file or memory."""

import contextlib
import os
from unittest import mock

from measure import Result, at_most
from programs import BENCH, Ckptd, Product, floor_client, floor_server, tensors_of


def measure(setting):
    result = Result("Copies of a byte of payload in user space")
    result.note(
        "counted once, by calls of memcpy and memmove; the kernel's copies to and from sockets and files are not"
    )

    def counted(who):
        """Processes that are started in it leave what they copied in the file that it returns."""
        return mock.patch.dict(
            os.environ, {"LD_PRELOAD": str(BENCH / "libcount_copies.so"), "COUNT_COPIES": str(file_of(who))}
        )

    def file_of(who):
        return setting.folder / f"copied-by-{who}"

    def report(name, who, goal=None):
        result.add(name, int(file_of(who).read_text()) / (setting.mib << 20), "a byte", goal)

    with contextlib.ExitStack() as server:
        with counted("server"):
            address = server.enter_context(floor_server(setting.folder))
        for what in ("save", "restore"):
            with counted("client"):
                floor_client(what, address, setting.mib, 2)
            report(f"floor, {what}: client", "client")
    report("floor, save and restore: server", "server")
    with Ckptd(setting.folder) as server:
        for what, words in (("save", [1]), ("restore", [])):
            with counted("server"):
                server.restart()
            with counted("client"):
                product = Product(what, server.address, "bench", *tensors_of(setting.mib), *words)
            product()
            server.restart()  # now the one before has written its count
            for who in ("client", "server"):
                report(f"{what}: {who}", who, at_most(0.05))
    return result
