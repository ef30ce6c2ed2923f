"""What a load finds: how the checkpoint and the live objects fit together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

_LINES = 20  # of a kind of difference, when printed


@dataclass(frozen=True)
class Change:
    """Something that is there on both sides, and differs: ``saved`` and ``here`` say how."""

    name: str
    saved: str
    here: str

    def __str__(self) -> str:
        return f"{self.name}: {self.saved} saved, {self.here} here"


@dataclass
class Differences:
    """How the entries of a model, or the slots of an optimizer, compare by name.

    Attributes:
        matched: those that are loaded.
        missing: those that are here only.
        unexpected: those that are in the checkpoint only.
        reshaped: those of another shape.
        dtype_changed: those of another dtype; a by-name load takes them.
        reordered: those that changed places among each other; a by-name load takes them (optimizers only).
    """

    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    reshaped: list[Change] = field(default_factory=list)
    dtype_changed: list[Change] = field(default_factory=list)
    reordered: list[str] = field(default_factory=list)

    @property
    def exact(self) -> bool:
        """Whether there are none."""
        return not (self.missing or self.unexpected or self.reshaped or self.dtype_changed or self.reordered)

    def lines(self) -> list[str]:
        out: list[str] = []
        kinds: list[tuple[str, list[Any]]] = [
            ("only here", self.missing),
            ("only saved", self.unexpected),
            ("other shape", self.reshaped),
            ("other dtype", self.dtype_changed),
            ("other order", self.reordered),
        ]
        for kind, items in kinds:
            out += [f"  {kind:<12} {item}" for item in items[:_LINES]]
            if len(items) > _LINES:
                out.append(f"  {'':<12} and {len(items) - _LINES} more")
        return out


@dataclass
class LoadReport:
    """What ``Client.load_into`` did, or ``Client.explain`` says that it would do. Printed, it is for a terminal.

    Attributes:
        reference: the checkpoint's exact version.
        match: "strict", "by_name" or "model_only".
        model: the model's entries; None if no model was given.
        optimizer: the optimizer's slots; None if no optimizer was given, or none is touched.
        groups: how parameter groups differ in number and members.
        hyperparameters: where the values of groups differ; a strict load restores all of them.
        guessed: the optimizer's slots were matched by position, because the checkpoint names none.
        refused: why the optimizer or the scheduler cannot be loaded, in any way that matches.
        absent: the parts that were asked for and that the checkpoint does not have.
        notes: what else was done or left out.
        values: what the checkpoint has besides the parts: the epoch, the best metric. Empty for ``explain``.
    """

    reference: str
    match: str
    model: Differences | None = None
    optimizer: Differences | None = None
    groups: list[str] = field(default_factory=list)
    hyperparameters: list[Change] = field(default_factory=list)
    guessed: bool = False
    refused: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    values: dict[Any, Any] = field(default_factory=dict)

    @property
    def model_fits(self) -> bool:
        return self.model is None or self.model.exact

    @property
    def optimizer_fits(self) -> bool:
        return not self.groups and not self.refused and (self.optimizer is None or self.optimizer.exact)

    @property
    def exact(self) -> bool:
        """Whether a strict load does it: nothing differs but the values of hyper-parameters."""
        return self.model_fits and self.optimizer_fits and not self.absent

    def __str__(self) -> str:
        out = [f'{self.reference}, match="{self.match}"']
        for name, part in (("model", self.model), ("optimizer", self.optimizer)):
            if part is not None:
                guess = self.guessed and name == "optimizer"
                by = " by position, a guess: the checkpoint has no names" if guess else ""
                out += [f"{name}: {len(part.matched)} matched{by}", *part.lines()]
        for title, items in (
            ("groups", self.groups),
            ("hyper-parameters", self.hyperparameters),
            ("not in the checkpoint", self.absent),
            ("refused", self.refused),
            ("notes", self.notes),
        ):
            if items:
                out += [f"{title}:", *(f"  {item}" for item in items)]
        return "\n".join(out)
