"""ckptctl save and restore of a .pth file; cp + openssl dgst + sync."""

import page_cache
import trainer
from measure import Result, alternate, at_most, timed
from programs import Ckptd, run

COPY = "cp + openssl dgst -sha256 + sync"


def measure(setting):
    result = Result("ckptctl, with a .pth file")
    file, copy = setting.folder / "state.pth", setting.folder / "copy.pth"
    trainer.save_file(trainer.Trainer(setting.gib).state(), file)

    def copied():
        copy.unlink(missing_ok=True)
        return timed(lambda: (run("cp", file, copy), run("openssl", "dgst", "-sha256", copy), run("sync", copy)))

    def save():
        with Ckptd(setting.folder) as server:
            seconds = timed(lambda: server.ctl("save", "bench", file, "--epoch", 1))
            result.add("ckptctl save: again", timed(lambda: server.ctl("save", "bench", file, "--epoch", 2)))
            return seconds

    def restore():
        copy.unlink(missing_ok=True)
        with Ckptd(setting.folder) as server:
            server.ctl("save", "bench", file, "--epoch", 1)
            first = timed(lambda: server.ctl("restore", "bench:latest", copy))
            if not page_cache.is_memory(setting.folder):
                result.add("ckptctl restore: the first after the save, from the disk", first)
            copy.unlink()
            return timed(lambda: server.ctl("restore", "bench:latest", copy))

    alternate(result, setting, {COPY: copied, "ckptctl save": save, "ckptctl restore": restore})
    result.note("what is copied or restored is in the page cache, but for the first restore after a save")
    result.ratio(f"time: ckptctl restore / {COPY}", "ckptctl restore", COPY, at_most(0.8))
    result.ratio(
        f"time: the first ckptctl restore / {COPY}",
        "ckptctl restore: the first after the save, from the disk",
        COPY,
        at_most(0.8),
    )
    result.ratio(f"time: ckptctl save / {COPY}", "ckptctl save", COPY, at_most(1.0))
    return result
