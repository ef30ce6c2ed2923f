"""Draws where the time of a road goes: a flame graph of server and clients, from what `perf` samples.

Each NAME leaves NAME.svg in the folder of --out. A frame is as wide as the processor time that was spent in it and in
what it called, and shows its share when it is pointed at; waiting takes none. CKPT_BIN names the programs of another
build, to compare.
"""

import argparse
import collections
import dataclasses
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import page_cache
from arguments import gib, one_of
from programs import BIN, Ckptd, Product, tensors_of

TRAINERS = 32
FREQUENCY = 499  # samples a second

WIDTH, ROW, NARROWEST, LETTER = 1200, 17, 0.5, 6.6  # pixels
COLORS = {  # by library
    "kernel": "#d9b26f",
    "libcrypto": "#d98c7a",
    "libxxhash": "#cf9fc4",
    "libgrpc": "#9fc3a3",
    "librocksdb": "#8fbcc9",
    "ckpt": "#9db8d2",
    "other": "#d5d5d5",
}
# Frames that say nothing: where threads start, what std::function adds, what has no name.
NOISE = re.compile(r"\[unknown\]|_start|start_thread|_*clone3?|__libc_start.*|main|std::.*|.*operator|_M_invoke")


class Perf:
    """`perf record` of some processes."""

    def __init__(self, file, names):
        """names: what each process id is shown as."""
        self.file, self.names = file, names
        orders, answers = os.pipe(), os.pipe()  # perf says when it has begun
        options = ["-F", FREQUENCY, "--call-graph", "dwarf,16384", "-o", file, "-p", ",".join(map(str, names))]
        options += ["--delay", "-1", "--control", f"fd:{orders[0]},{answers[1]}"]
        self.process = subprocess.Popen(
            ["perf", "record", *map(str, options)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=(orders[0], answers[1]),
        )
        os.write(orders[1], b"enable\n")
        os.close(orders[0])
        os.close(answers[1])
        self.orders, self.answers = orders[1], answers[0]
        if not os.read(self.answers, 100):
            sys.exit(f"flames: perf: {self.process.communicate()[1]}")

    def stop(self):
        os.write(self.orders, b"stop\n")
        self.process.communicate()
        os.close(self.orders)
        os.close(self.answers)

    def stacks(self):
        """How many samples there are of each stack: of (name, library), outermost first."""
        script = ["perf", "script", "-i", self.file, "--no-inline", "-F", "pid,ip,sym,dso"]
        text = subprocess.run(script, capture_output=True, text=True, check=True).stdout
        counts = collections.Counter()
        for sample in text.split("\n\n"):
            head, _, frames = sample.strip("\n").partition("\n")
            if head.strip():
                counts[(self.names[int(head)], "other"), *frames_of(frames)] += 1
        return counts


def frames_of(text):
    """What a sample's lines, innermost first, say: (name, library), outermost first."""
    out = []
    for line in reversed(text.splitlines()):
        match = re.fullmatch(r"\s*[0-9a-f]+ (.*) \(([^()]*)( \(deleted\))?\)", line)
        if match and not NOISE.fullmatch(name := short(match[1])):
            out.append((name, library_of(match[2])))
    return out


def short(symbol):
    """Class and function, or just the function; without parameters."""
    symbol = symbol.replace("(anonymous namespace)::", "")
    while symbol != (symbol := re.sub(r"<[^<>]*>|\([^()]*\)", "", symbol)):
        pass
    name = symbol.split("::{lambda")[0].split("@")[0].split(" ")[-1]
    return name if name.startswith("std::") else "::".join(name.split("::")[-2:])


def library_of(file):
    if "kernel" in file or "vdso" in file:
        return "kernel"
    name = Path(file).name
    if name.startswith(("libgrpc", "libgpr", "libabsl")):
        return "libgrpc"
    return next((known for known in COLORS if name.startswith(known)), "ckpt" if name == "product" else "other")


@dataclasses.dataclass
class Frame:
    name: str
    module: str
    count: int = 0
    callees: dict = dataclasses.field(default_factory=dict)

    def add(self, stack, count):
        self.count += count
        if stack:
            self.callees.setdefault(stack[0], Frame(*stack[0])).add(stack[1:], count)

    def depth(self):
        return 1 + max((frame.depth() for frame in self.callees.values()), default=0)


def draw(path, title, counts):
    """Writes the stacks as SVG, outermost at the bottom."""
    root = Frame("all", "other")
    for stack, count in counts.items():
        root.add(stack, count)
    height = (root.depth() + 3) * ROW
    svg = ElementTree.Element(
        "svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {WIDTH} {height}", width=str(WIDTH), height=str(height)
    )
    svg.set("font-family", "monospace")
    svg.set("font-size", "11")
    ElementTree.SubElement(svg, "rect", width="100%", height="100%", fill="#ffffff")

    def write(x, y, text):
        ElementTree.SubElement(svg, "text", x=f"{x:.1f}", y=f"{y - 5}").text = text

    def box(frame, x, y, width):
        label = f"{frame.name}: {frame.count / root.count:.1%}"
        group = ElementTree.SubElement(svg, "g")
        ElementTree.SubElement(group, "title").text = label
        ElementTree.SubElement(
            group,
            "rect",
            x=f"{x:.1f}",
            y=str(y - ROW),
            width=f"{width:.1f}",
            height=str(ROW - 1),
            fill=COLORS[frame.module],
        )
        letters = int((width - 4) / LETTER)
        if letters >= 3:
            write(x + 2, y, label if len(label) <= letters else frame.name[:letters])

    def lay(frame, x, y):
        width = frame.count / root.count * WIDTH
        if width < NARROWEST:
            return
        box(frame, x, y, width)
        for callee in sorted(frame.callees.values(), key=lambda callee: callee.name):
            lay(callee, x, y - ROW)
            x += callee.count / root.count * WIDTH

    write(4, ROW, title)
    x = 4
    for library, color in COLORS.items():
        ElementTree.SubElement(svg, "rect", x=str(x), y=str(ROW + 3), width="10", height="10", fill=color)
        write(x + 14, 2 * ROW, library)
        x += 30 + len(library) * LETTER
    lay(root, 0, height)
    ElementTree.indent(svg, "")
    ElementTree.ElementTree(svg).write(path, encoding="utf-8", xml_declaration=True)


# The roads. Each returns the stacks, and the seconds that it took.


def run(file, server, products, client):
    perf = Perf(file, {server.pid: "ckptd", **{product.process.pid: client for product in products}})
    for product in products:
        product.begin()
    outcomes = [product.outcome() for product in products]
    perf.stop()
    for product in products:
        product.wait()
    seconds = max(outcome["seconds"] if "seconds" in outcome else outcome["saves"][0]["seconds"] for outcome in outcomes)
    return perf.stacks(), seconds


def save(folder, mib):
    with Ckptd(folder) as server:
        return run(folder / "perf", server, [Product("save", server.address, "bench", *tensors_of(mib), 1)], "client")


def restore(folder, mib):
    with Ckptd(folder) as server:
        Product("save", server.address, "bench", *tensors_of(mib), 1)()
        page_cache.load(server.store)
        return run(folder / "perf", server, [Product("restore", server.address, "bench", *tensors_of(mib))], "client")


def trainers(folder, mib):
    with Ckptd(folder) as server:
        shape = tensors_of(max(16, mib // TRAINERS // 16 * 16))
        products = [Product("save", server.address, f"run-{i}", *shape, 1) for i in range(TRAINERS)]
        return run(folder / "perf", server, products, "clients")


ROADS = {
    "save": (save, "a fresh save"),
    "restore": (restore, "a restore, from the page cache"),
    "trainers": (trainers, f"{TRAINERS} fresh saves at once"),
}


def main():
    build = BIN.parent
    parser = argparse.ArgumentParser(
        prog="./dev flames", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("roads", nargs="*", metavar="NAME", type=one_of(ROADS), help=f"{', '.join(ROADS)} (default: all)")
    add("--size", type=gib, default=1, metavar="GIB", help="size of the state (default 1)")
    add("--dir", type=Path, default=build, help="where stores go meanwhile (default: build)")
    add("--out", type=Path, default=build / "flames", help="for the pictures (default: build/flames)")
    args = parser.parse_args()
    if not shutil.which("perf"):
        sys.exit("flames: perf is not installed (Debian package linux-perf)")
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.roads or ROADS:
        road, title = ROADS[name]
        with tempfile.TemporaryDirectory(dir=args.dir, prefix="ckpt-flames-") as folder:
            counts, seconds = road(Path(folder), max(16, int(args.size * 1024) // 16 * 16))
        used = counts.total() / FREQUENCY
        draw(args.out / f"{name}.svg", f"{title}: {seconds:.2f} s while sampled, {used:.2f} core-seconds seen", counts)
        print(args.out / f"{name}.svg")


if __name__ == "__main__":
    main()
