"""A result as a picture."""

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

BAR, DOT, REACHED, MISSED = "#9db8d2", "#44586c", "#2c7a3f", "#b03030"


def draw(path, result, how):
    """Medians as bars, least and most as whiskers, each round as a dot, the goal as a line. A part for each unit."""
    parts = {}
    for figures in (result["figures"], result["ratios"]):
        for name, figure in figures.items():
            parts.setdefault(figure["unit"] or "ratio", {})[name] = figure
    heights = [len(part) + 1.5 for part in parts.values()]
    drawing, axes = pyplot.subplots(
        nrows=len(parts),
        figsize=(10, 0.34 * sum(heights) + 0.8),
        squeeze=False,
        height_ratios=heights,
        layout="constrained",
    )
    for (unit, part), ax in zip(parts.items(), axes[:, 0], strict=True):
        for place, figure in enumerate(part.values()):
            median, values = figure["median"], figure["values"]
            reach = [[median - figure["min"]], [figure["max"] - median]]
            ax.barh(place, median, xerr=reach, color=BAR, ecolor=DOT, capsize=3)
            ax.plot(values, [place] * len(values), "o", markersize=3, color=DOT)
            if "goal" in figure:
                color = REACHED if figure["met"] else MISSED
                ax.vlines(float(figure["goal"].split()[1]), place - 0.45, place + 0.45, color=color, linewidth=2)
        ax.set_yticks(range(len(part)), list(part))
        ax.invert_yaxis()
        ax.set_xlim(left=0)
        ax.set_xlabel(unit)
    drawing.suptitle(f"{result['title']}\n{how}", fontsize=9)
    drawing.savefig(path, dpi=110)
    pyplot.close(drawing)
