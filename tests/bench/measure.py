"""Sides that reach the same thing in different ways, measured in turn; what came out, and what it is held to."""

import dataclasses
import os
import statistics
import sys
import time


@dataclasses.dataclass(frozen=True)
class Goal:
    sign: str  # "≤" or "≥"
    bound: float

    def met(self, value):
        return value <= self.bound if self.sign == "≤" else value >= self.bound

    def __str__(self):
        return f"{self.sign} {self.bound:g}"


def at_most(bound):
    return Goal("≤", bound)


def at_least(bound):
    return Goal("≥", bound)


@dataclasses.dataclass
class Figure:
    """A value for each round."""

    unit: str
    values: list
    goal: Goal | None = None

    @property
    def median(self):
        return statistics.median(self.values)

    def as_json(self):
        out = {
            "unit": self.unit,
            "median": self.median,
            "min": min(self.values),
            "max": max(self.values),
            "values": self.values,
        }
        if self.goal:
            out |= {"goal": str(self.goal), "met": self.goal.met(self.median)}
        return out


class Result:
    """What one benchmark found."""

    def __init__(self, title):
        self.title = title
        self.figures = {}
        self.ratios = {}
        self.notes = []
        self.counting = True  # False while it warms up

    def add(self, name, value, unit="s", goal=None):
        """Notes a round's value."""
        if self.counting:
            self.figures.setdefault(name, Figure(unit, [], goal)).values.append(value)

    def ratio(self, name, of, to, goal=None):
        """The ratio of two figures in each round; nothing if one is missing."""
        if of in self.figures and to in self.figures:
            values = zip(self.figures[of].values, self.figures[to].values, strict=True)
            self.ratios[name] = Figure("", [a / b for a, b in values], goal)

    def least(self, name, names):
        """Adds a figure: the least of several in each round."""
        rounds = zip(*(self.figures[each].values for each in names), strict=True)
        self.figures[name] = Figure("s", [min(values) for values in rounds])

    def note(self, text):
        if text not in self.notes:
            self.notes.append(text)

    def as_json(self):
        return {
            "title": self.title,
            "notes": self.notes,
            "figures": {name: figure.as_json() for name, figure in self.figures.items()},
            "ratios": {name: figure.as_json() for name, figure in self.ratios.items()},
        }


def timed_value(work):
    """Seconds that a call takes, and what it returns."""
    start = time.perf_counter()
    value = work()
    return time.perf_counter() - start, value


def timed(work):
    """Seconds that a call takes."""
    return timed_value(work)[0]


def alternate(result, setting, sides, prepare=None):
    """Calls every side once a round, every second round in reverse order, and notes the seconds that it returns.

    Further figures, "SIDE: …", a side adds itself. A round before the first warms up and is not counted. `prepare` is
    called before each. What was written before is on disk when a side begins, and the disk has rested.
    """
    before = list(result.figures)
    for number in range(setting.rounds + 1):
        result.counting = number > 0
        if prepare:
            prepare()
        names = list(sides)
        for name in reversed(names) if number % 2 == 0 else names:
            os.sync()
            time.sleep(setting.rest_s)
            seconds = sides[name]()
            if seconds is not None:  # some only add figures of their own
                result.add(name, seconds)
        if sys.stderr.isatty():
            print(f"{result.title}: round {number} of {setting.rounds} done", file=sys.stderr)
    result.counting = True
    # "SIDE: …" stands below its side, in the order of the sides.
    order = {name: number for number, name in enumerate([*before, *sides])}
    place = {
        name: (order.get(name, order.get(name.split(":")[0], len(order))), name not in order) for name in result.figures
    }
    result.figures = {name: result.figures[name] for name in sorted(result.figures, key=place.get)}
