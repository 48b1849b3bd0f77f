"""What was changed on the way from a tool's file to ours: every rule once, how often, and the first example."""

from __future__ import annotations

from dataclasses import dataclass, field

SEVERITIES = "severe", "warning", "note"


@dataclass
class Line:
    """One rule: severity, how often it was applied, and where first."""

    severity: str
    count: int
    example: str


@dataclass
class Changes:
    """A printable report; nothing is lost without a line in it.

    Attributes:
        title: what was read, as what kind and why.
        lines: rule → Line. "severe" means that labels are lost or doubtful, "warning" that something was guessed,
            "note" that only the way of writing differs.
    """

    title: str = ""
    lines: dict[str, Line] = field(default_factory=dict)

    def add(self, rule: str, example: object, severity: str = "note", count: int = 1) -> None:
        """Count a rule; the first example stays, and the worst severity."""
        if rule not in self.lines:
            self.lines[rule] = Line(severity, 0, f"{example!s:.120}")
        line = self.lines[rule]
        line.severity = min(line.severity, severity, key=SEVERITIES.index)
        line.count += count

    def include(self, other: Changes, prefix: str = "") -> None:
        """Take over the lines of another report, the examples marked with where they come from."""
        for rule, line in other.lines.items():
            self.add(rule, f"{prefix}{line.example}", line.severity, line.count)

    @property
    def severe(self) -> list[str]:
        """The rules that lost labels or leave them doubtful."""
        return [rule for rule, line in self.lines.items() if line.severity == "severe"]

    def __bool__(self) -> bool:
        return bool(self.lines)

    def __str__(self) -> str:
        rows = sorted(self.lines.items(), key=lambda item: SEVERITIES.index(item[1].severity))
        text = [f"  {line.severity:8}{line.count:>7} × {rule} (first: {line.example})" for rule, line in rows]
        return "\n".join([self.title] * bool(self.title) + (text or ["  nothing had to be changed"]))

    __repr__ = __str__
