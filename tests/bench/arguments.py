"""Words of a command line: argparse says what is wrong with one that is refused."""

import argparse
import tempfile
from pathlib import Path


def one_of(names):
    """A type of words that are one of these."""

    def name(word):
        if word not in names:
            raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(names)}")
        return word

    return name


def gib(word):
    """A size that makes a state: 0.015625 is one tensor of 16 MiB."""
    try:
        size = float(word)
    except ValueError:
        size = 0
    if not 1 / 64 <= size <= 4096:  # not nan either
        raise argparse.ArgumentTypeError(f"{word} is no size: GiB, from {1 / 64} to 4096")
    return size


def rounds(word):
    count = int(word) if word.isdecimal() else 0
    if count < 1:
        raise argparse.ArgumentTypeError(f"{word}: at least one round")
    return count


def seconds(word):
    try:
        length = float(word)
    except ValueError:
        length = -1
    if not 0 <= length <= 3600:  # not nan either
        raise argparse.ArgumentTypeError(f"{word}: seconds, from 0 to 3600")
    return length


def folder(word):
    """A folder that is there, to write into."""
    path = Path(word).resolve()
    try:
        tempfile.TemporaryFile(dir=path).close()
    except OSError:
        raise argparse.ArgumentTypeError(f"{path} is no folder that can be written to") from None
    return path
