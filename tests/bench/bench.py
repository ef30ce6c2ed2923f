"""Measures ckptd beside a floor program and beside what people do without it.

Without a NAME: saves, restores, files and copies (see --list). Each NAME leaves NAME.json and NAME.png in the folder of --out.
"""

import argparse
import ast
import contextlib
import dataclasses
import datetime
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import page_cache
import report
from arguments import folder, gib, one_of, rounds, seconds
from programs import BIN, ROOT

BUILD = BIN.parent
sys.path.insert(0, str(BUILD / "python"))  # the Python client, as it was built

# Each is a module, which says in its docstring what it measures.
PYTORCH = ("save", "unchanged", "async", "restore")
GOALS = (*PYTORCH, "remote", "ctl", "copies")
SUBJECTS = (*GOALS, "peers", "stored", "memory", "trainers", "index")
GROUPS = {"goals": GOALS, "pytorch": PYTORCH, "all": SUBJECTS}


@dataclasses.dataclass
class Setting:
    gib: float
    rounds: int
    rest_s: float
    folder: Path  # a new one, for stores and files

    @property
    def mib(self):
        """The state's size, a multiple of 16."""
        return max(16, int(self.gib * 1024) // 16 * 16)


def show_list():
    for name in SUBJECTS:
        print(f"{name:10} {ast.get_docstring(ast.parse(Path(__file__).with_name(f'{name}.py').read_text()))}")
    for name, members in GROUPS.items():
        print(f"{name:10} {', '.join(members)}")


def first_line(*command):
    try:
        return (
            subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False).stdout.strip().split("\n")[0]
        )
    except OSError:
        return ""


def processor():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


def describe(setting, folder):
    """Where and when it is measured, for the JSON."""
    return {
        "size_gib": setting.gib,
        "rounds": setting.rounds,
        "rest_s": setting.rest_s,
        "cores": os.cpu_count(),
        "processor": processor(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "file_system": page_cache.file_system(folder),
        "pytorch": importlib.metadata.version("torch"),
        "commit": first_line("git", "describe", "--always", "--dirty"),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "load_before": round(os.getloadavg()[0], 2),
    }


METHOD = """\
After a round that warms up and is not counted, each round runs every side once, every second round in reverse order,
with the disk synced before each. A ratio is taken in each round; median, min and max are over the rounds. s: seconds.
Goals are meant for --size 1. The load of the machine before it began was {load_before}."""


def measure(name, args):
    """Measures one subject, and writes what came out."""
    with tempfile.TemporaryDirectory(dir=args.dir, prefix="ckpt-bench-") as scratch:
        setting = Setting(args.size, args.rounds, args.rest, Path(scratch))
        described = describe(setting, scratch)
        result = {"setting": described, **importlib.import_module(name).measure(setting).as_json()}
    (args.out / f"{name}.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    if importlib.util.find_spec("matplotlib"):
        importlib.import_module("plot").draw(args.out / f"{name}.png", result, report.how(described))
    else:
        print("bench: matplotlib is not installed (tests/bench/requirements.txt): no plot is drawn", file=sys.stderr)
    return result


def fill_docs(out):
    """Writes what is in the folder of results into docs/performance.md."""
    results = {file.stem: json.loads(file.read_text()) for file in out.glob("*.json")}
    if not results:
        sys.exit(f"bench: there are no results in {out}")
    ordered = {name: results[name] for name in SUBJECTS if name in results}
    report.fill(ROOT / "docs/performance.md", ordered, out)


def arguments():
    parser = argparse.ArgumentParser(
        prog="./dev bench",
        description=__doc__,
        epilog="Folders that do not begin with a / are below the project's.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    known = one_of([*SUBJECTS, *GROUPS])
    add("names", nargs="*", metavar="NAME", type=known, help="what to measure: see --list (default: goals)")
    add("--list", action="store_true", help="say what there is to measure")
    add("--size", type=gib, default=1, metavar="GIB", help="size of the state (default 1)")
    add("--rounds", type=rounds, default=5, metavar="N", help="how often each side runs (default 5)")
    add("--rest", type=seconds, default=0, metavar="S", help="how long the disk rests before each side (default 0 s)")
    add("--dir", type=folder, default=BUILD, help="where stores and files go meanwhile (default: build)")
    add("--out", type=Path, default=BUILD / "bench-results", help="for the results (default: build/bench-results)")
    add("--docs", action="store_true", help="only write all results in --out into docs/performance.md")
    return parser.parse_args()


def main():
    args = arguments()
    if args.list:
        show_list()
        return
    if args.docs:
        fill_docs(args.out)
        return
    names = [name for word in args.names or ["goals"] for name in GROUPS.get(word, (word,))]
    end_as_interrupted()
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=args.out).close()
    except OSError as error:
        sys.exit(f"bench: no results can be written to {args.out}: {error.strerror}")
    results = {}
    for name in dict.fromkeys(names):
        results[name] = measure(name, args)
        if len(results) == 1:
            setting = results[name]["setting"]
            print(f"{report.how(setting)}.\n{METHOD.format(**setting)}")
        print(report.text(name, results[name]), flush=True)
    print(report.goals_text(results))
    print(f"\nAll figures and plots: {args.out}")


def end_as_interrupted():
    """Whatever ends this, it ends its servers and programs, and removes its files."""

    def end(number, _):
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        with contextlib.suppress(OSError):  # what ended meanwhile
            for task in Path("/proc/self/task").iterdir():
                for child in (task / "children").read_text().split():
                    os.kill(int(child), signal.SIGTERM)
        sys.exit(128 + number)

    every = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    signals = [number for number in every if signal.getsignal(number) != signal.SIG_IGN]  # as under nohup
    for number in signals:
        signal.signal(number, end)


if __name__ == "__main__":
    main()
