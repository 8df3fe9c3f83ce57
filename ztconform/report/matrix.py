# SPDX-License-Identifier: Apache-2.0
"""The run at a glance: requirements by area with outcome and worst denial window, reasons for what is not proved, and totals.

The words carry everything; colour only repeats them. What is behind a red row is left to `redrow`.
"""

import io
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ztconform.catalogue import AREAS, Requirement
from ztconform.evidence import Window
from ztconform.model import Outcome
from ztconform.report.results import WORST_FIRST, Result, RunResult, outcomes
from ztconform.report.rows import worst_window

_STYLES: Mapping[Outcome, str] = {
    "PROVED": "green",
    "VIOLATED": "bold red",
    "INCONCLUSIVE": "bold yellow",
    "NOT_RUN": "magenta",
    "NOT_SUPPORTED": "cyan",
}
_GAP = 3  # columns between two cells
_LABEL = max(map(len, AREAS))
# In the order in which they come; a phase that is not here follows.
_PHASES = (
    "cluster", "stack", "canary", "workloads", "refuse", "control", "apply", "converge", "hold", "witness", "release",
)  # fmt: skip
_NARROWEST = 40  # below this nothing reads well, and lines are left to the terminal


def render(
    run: RunResult, catalogue: Mapping[str, Requirement], *, width: int = 100, colour: bool = False, times: bool = False
) -> str:
    """Return the matrix as text of at most `width` columns, without a newline at its end; with `times`, where the time went."""
    width = max(width, _NARROWEST)
    out = io.StringIO()
    console = Console(
        file=out, width=width, force_terminal=colour, no_color=not colour, highlight=False, markup=False, emoji=False,
        color_system="standard" if colour else None, legacy_windows=False,
    )  # fmt: skip  # one option a line would be longer than the rest of the function
    console.print(_areas(run, catalogue, width))
    if run.cases:
        console.print(_cases(run))
    everything = (*run.canary, *run.requirements, *run.cases)
    if any(result.outcome != "PROVED" or result.counts.notes for result in everything):
        console.print()
        console.print(_reasons(everything))
    console.print()
    for line in (*_about_the_cluster(run), *(_time_split(run.times) if times else ()), *_totals(run)):
        console.print(line)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _areas(run: RunResult, catalogue: Mapping[str, Requirement], width: int) -> Table:
    groups: list[tuple[str, Sequence[Result]]] = [("canary", run.canary)]
    for area in AREAS:
        groups.append((area, sorted((r for r in run.requirements if catalogue[r.id].area == area), key=lambda r: r.id)))
    shown = [(label, [_cell(result) for result in results]) for label, results in groups if results]
    widest = max((cell.cell_len for _, cells in shown for cell in cells), default=0)
    columns = max(1, (width - _LABEL) // (widest + _GAP))
    table = _grid(1 + columns)
    for name, cells in shown:
        for start in range(0, len(cells), columns):
            table.add_row("" if start else name, *cells[start : start + columns])
    return table


def _cases(run: RunResult) -> Table:
    """List the cases one a line: their names are long, and would leave one column to the requirements."""
    table = _grid(2)
    for number, result in enumerate(run.cases):
        table.add_row("" if number else "cases", _cell(result))
    return table


def _grid(columns: int) -> Table:
    table = Table.grid(padding=(0, _GAP, 0, 0), pad_edge=False)
    table.add_column(no_wrap=True, min_width=_LABEL)
    for _ in range(columns - 1):
        table.add_column(overflow="fold")
    return table


def _cell(result: Result) -> Text:
    cell = Text(f"{result.id} ")
    cell.append(result.outcome, style=_STYLES[result.outcome])
    longest = worst_window(result.rows)
    if longest is not None:
        cell.append(f" {_short(longest)}")
    return cell


def _short(window: Window) -> str:
    return f"< {window.spacing * 1e3:.0f} ms" if window.seconds < window.spacing else f"{window.seconds * 1e3:.0f} ms"


def _reasons(results: Sequence[Result]) -> Table:
    """List what is not proved, worst first, and what was left out; those that share a reason share a line."""
    alike: dict[tuple[Outcome, str], list[str]] = {}
    for result in results:
        if result.outcome != "PROVED":
            alike.setdefault((result.outcome, result.why), []).append(result.id)
    table = _grid(2)
    for (outcome, why), ids in sorted(alike.items(), key=lambda entry: WORST_FIRST.index(entry[0][0])):
        table.add_row(Text(outcome, style=_STYLES[outcome]), f"{' '.join(ids)}: {why}")
    noted: dict[str, list[str]] = {}
    for result in results:
        for note in result.counts.notes:
            noted.setdefault(note, []).append(result.id)
    for note, ids in noted.items():
        table.add_row("NOTE", f"{' '.join(ids)}: {note}")
    return table


def _about_the_cluster(run: RunResult) -> Iterable[Text]:
    return (Text(f"Note: {note}") for note in run.notes)


def _time_split(times: Mapping[str, float]) -> Iterable[Text]:
    """Say where the time went; of proofs that ran side by side the seconds are added up."""
    known = [*(phase for phase in _PHASES if phase in times), *(phase for phase in times if phase not in _PHASES)]
    spent = [f"{phase} {_seconds(times[phase])} s" for phase in known if times[phase] >= 0.05]
    if spent:
        yield Text(f"Time: {', '.join(spent)}")


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f}" if seconds >= 9.95 else f"{seconds:.1f}"


def _totals(run: RunResult) -> Iterable[Text]:
    spacings = [w.spacing for r in (*run.requirements, *run.cases) if (w := worst_window(r.rows)) is not None]
    if spacings:
        least, most = (f"{spacing * 1e3:.0f}" for spacing in (min(spacings), max(spacings)))
        every = least if least == most else f"{least} to {most}"
        yield Text(f"Times: the longest that a denied row was still answered after apply; probed every {every} ms.")
    for message in run.could_not_run:
        yield Text(f"Could not run: {message}")
    if not run.complete:
        yield Text("Not complete: something was deselected, cut short or lost.")
    counted = [_count(noun, results) for noun, results in (("requirement", run.requirements), ("case", run.cases)) if results]
    yield Text("; ".join(counted) or "0 requirements: nothing was proved")


def _count(noun: str, results: Sequence[Result]) -> str:
    by_outcome = ", ".join(f"{number} {outcome}" for outcome, number in reversed(outcomes(results).items()))
    return f"{len(results)} {noun}{'' if len(results) == 1 else 's'}{': ' + by_outcome if by_outcome else ''}"
