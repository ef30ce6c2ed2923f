"""Results, as their JSON has them, in words: for a terminal and for docs/performance.md."""

import re
import shutil


def how(setting):
    """Where it was measured."""
    rounds = f"{setting['rounds']} round{'s' if setting['rounds'] > 1 else ''}"
    rest = f" with {setting['rest_s']:g} s of rest" if setting.get("rest_s") else ""
    machine = f"{setting['cores']} cores shared by server and client, {setting['processor']}"
    return (
        f"{setting['size_gib']:g} GiB, {rounds}, alternating{rest}; {machine}; stores and files on {setting['file_system']}"
    )


def rows(figures):
    """(name, median, min, max, goal) of each, as text."""
    for name, figure in figures.items():
        digits = 3 if figure["max"] < 100 else 0
        values = [f"{figure[what]:.{digits}f}" for what in ("median", "min", "max")]
        goal = f"{figure['goal']}: {'reached' if figure['met'] else 'missed'}" if "goal" in figure else ""
        yield (f"{name}, {figure['unit']}" if figure["unit"] else name, *values, goal)


def table(figures):
    """Aligned columns."""
    lines = [("", "median", "min", "max", ""), *rows(figures)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for name, *values, goal in lines:
        numbers = "  ".join(f"{value:>{width}}" for value, width in zip(values, widths[1:], strict=False))
        yield f"  {name:{widths[0]}}  {numbers}  {goal}".rstrip()


def text(name, result):
    """All of a result, for a terminal."""
    lines = ["", f"{name}: {result['title']}", *table(result["figures"] | result["ratios"])]
    return "\n".join([*lines, *(f"  {note}" for note in result["notes"])])


def goals(results):
    """What has a goal, with the subject's name before it."""
    return {
        f"{subject}: {name}": figure
        for subject, result in results.items()
        for name, figure in (result["figures"] | result["ratios"]).items()
        if "goal" in figure
    }


def goals_text(results):
    held = goals(results)
    return "\n".join(["", "Goals", *table(held)]) if held else ""


def markdown(figures):
    lines = ["| | median | min | max | goal |", "| --- | ---: | ---: | ---: | --- |"]
    lines += [f"| {' | '.join(row)} |" for row in rows(figures)]
    return "\n".join(lines)


def section(result):
    """All of a result, for a page."""
    setting = result["setting"]
    paragraphs = [f"{how(setting)}; commit {setting['commit']}, {setting['date'][:10]}."]
    paragraphs += [f"{note[0].upper()}{note[1:]}." for note in result["notes"]]
    return "\n\n".join([*paragraphs, markdown(result["figures"] | result["ratios"])])


def fill(page, results, plots):
    """Writes the results into a page, between `<!-- bench NAME -->` and `<!-- end -->`; the plots go beside it.

    The goals stay as they are if they are also of a subject of which there is no result.
    """

    def part(match):
        name = match[1]
        body = None
        if name == "goals" and set(re.findall(r"^\| (\w+): ", match[0], re.MULTILINE)) <= results.keys():
            body = markdown(goals(results))
        if name in results:
            body = section(results[name])
            if (plots / f"{name}.png").exists():
                (page.parent / "plots").mkdir(exist_ok=True)
                shutil.copy(plots / f"{name}.png", page.parent / "plots")
                body += f"\n\n![{results[name]['title']}](plots/{name}.png)"
        return match[0] if body is None else f"<!-- bench {name} -->\n{body}\n<!-- end -->"

    places = r"<!-- bench (\w+) -->\n(?:(?!<!-- ).*\n)*<!-- end -->"
    page.write_text(re.sub(places, part, page.read_text()))
