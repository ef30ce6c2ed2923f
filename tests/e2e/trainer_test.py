"""digits_trainer, whatever is killed meanwhile, ends where it would have ended undisturbed: bit for bit.

What is compared is the SHA-256 of the stored state, which covers every byte of the weights, the optimizer and the random
numbers; the trainer prints it after each save. CKPT_SEED repeats the random moments of a test.

usage: trainer_test.py BIN-DIR
"""

import os
import queue
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "harness"))
from server import Server  # noqa: E402

BIN = Path(sys.argv.pop(1))
SEED = int(os.environ.get("CKPT_SEED", 0)) or random.SystemRandom().randrange(1 << 30)
EPOCHS = 12
SAVED = re.compile(r"  saved as (\S+)@(\d+)#(\d+): .*, state ([0-9a-f]{16})")
FINAL = re.compile(r"(\d+) epochs done, .*, final state ([0-9a-f]{64})")


class Trainer:
    """A running digits_trainer, and the lines that it has printed so far."""

    def __init__(self, server, run, *flags):
        self.lines = []
        self.silenced = False  # its output has ended
        self.arriving = queue.Queue()
        self.process = subprocess.Popen(
            [BIN / "digits_trainer", "--server", server.address, "--run", run, "--epochs", str(EPOCHS), *flags],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            self.arriving.put(line.rstrip("\n"))
        self.arriving.put(None)

    def next_line(self, timeout=None):
        """Takes one more line; false when there is none within the time, or no more at all."""
        if self.silenced:
            return False
        try:
            line = self.arriving.get(timeout=timeout)
        except queue.Empty:
            return False
        if line is None:
            self.silenced = True
        else:
            self.lines.append(line)
        return not self.silenced

    def wait_for_epoch(self):
        """Returns when one more epoch is trained, before it is saved; false when the trainer has ended instead."""
        while self.next_line():
            if self.lines[-1].startswith("epoch "):
                return True
        return False

    def wait_for_stuck_save(self):
        """With the server stopped: returns when the trainer waits for it to save, or has ended."""
        quiet = False
        while not self.silenced and not (quiet and self.lines and self.lines[-1].startswith("epoch ")):
            quiet = not self.next_line(timeout=0.3)

    def end(self):
        """Takes what is left of the output; the exit code."""
        while self.next_line():
            pass
        self.reader.join()
        self.process.stdout.close()
        return self.process.wait()

    def kill(self):
        """Whether it was still running."""
        self.process.kill()
        return self.end() == -signal.SIGKILL

    def saved(self):
        """[(epoch, state)] of the saves that it knows to have succeeded."""
        return [(int(match[2]), match[4]) for match in map(SAVED.fullmatch, self.lines) if match]

    def final(self):
        match = FINAL.fullmatch(self.lines[-1])
        return match and (int(match[1]), match[2])


class TrainerTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        """An undisturbed run: what all others must come to."""
        print(f"CKPT_SEED={SEED}", flush=True)
        with tempfile.TemporaryDirectory() as folder, Server(BIN / "ckptd", f"{folder}/store", Path(folder, "log")) as server:
            begin = time.monotonic()
            trainer = Trainer(server, "undisturbed")
            assert trainer.end() == 0, trainer.lines
            cls.epoch_s = (time.monotonic() - begin) / EPOCHS
        cls.states, cls.final = dict(trainer.saved()), trainer.final()
        assert sorted(cls.states) == list(range(1, EPOCHS + 1)), trainer.lines
        assert len(set(cls.states.values())) == EPOCHS, "epochs must differ in their states"

    def setUp(self):
        self.random = random.Random(f"{SEED} {self.id()}")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.server = Server(BIN / "ckptd", f"{folder.name}/store", Path(folder.name, "log"))
        self.server.start()
        self.addCleanup(self.server.__exit__)

    def check_saves(self, trainer):
        for epoch, state in trainer.saved():
            self.assertEqual(state, self.states[epoch], f"epoch {epoch} is another state\n" + "\n".join(trainer.lines))

    def check_end(self, trainer):
        self.assertEqual(trainer.end(), 0, trainer.lines)
        self.check_saves(trainer)
        self.assertEqual(trainer.final(), self.final, trainer.lines)

    def kill_in_a_save(self, trainer):
        self.server.process.send_signal(signal.SIGSTOP)
        try:
            trainer.wait_for_stuck_save()
            return trainer.kill()
        finally:
            self.server.process.send_signal(signal.SIGCONT)

    def test_a_killed_trainer_resumes_bit_for_bit(self):
        kills = {"anywhere": 0, "in a save": 0}
        for in_a_save in (False, True, False, True, False, False):
            trainer = Trainer(self.server, "killed", "--resume")
            # A stopped server would let the trainer wait for its restore, too: so that is over first.
            for _ in range(self.random.randrange(1 if in_a_save else 0, 3)):
                trainer.wait_for_epoch()
            time.sleep(self.random.uniform(0, min(self.epoch_s, 0.2)))  # the random moment
            killed = self.kill_in_a_save(trainer) if in_a_save else trainer.kill()
            kills["in a save" if in_a_save else "anywhere"] += killed
            self.check_saves(trainer)
        trainer = Trainer(self.server, "killed", "--resume")
        self.check_end(trainer)
        print(f"killed {kills}; at last: {trainer.lines[0]}", flush=True)
        self.assertGreater(kills["anywhere"], 0)
        self.assertGreater(kills["in a save"], 0)

    def test_a_trainer_outlives_kills_of_the_server(self):
        trainer = Trainer(self.server, "outlives")
        for _ in range(3):
            self.assertTrue(trainer.wait_for_epoch(), trainer.lines)
            time.sleep(self.random.uniform(0, self.epoch_s))  # the random moment: in its save, or in the next epoch
            self.server.kill()
            self.assertIsNone(trainer.process.poll(), trainer.lines)
            self.server.start()
        self.check_end(trainer)
        self.assertEqual([epoch for epoch, _ in trainer.saved()], list(range(1, EPOCHS + 1)))

    def test_a_new_run_begins_and_a_finished_one_stays(self):
        trainer = Trainer(self.server, "whole", "--resume")
        self.check_end(trainer)
        self.assertIn("has no checkpoint yet: starting from the beginning", trainer.lines[0])
        again = Trainer(self.server, "whole", "--resume")
        self.check_end(again)
        self.assertEqual(again.saved(), [])
        self.assertIn(f"resumed from whole@{EPOCHS}#1", again.lines[0])

    def test_another_seed_is_another_run(self):
        trainer = Trainer(self.server, "other", "--seed", "1")
        self.assertEqual(trainer.end(), 0, trainer.lines)
        self.assertNotEqual(trainer.final(), self.final)


if __name__ == "__main__":
    unittest.main()
