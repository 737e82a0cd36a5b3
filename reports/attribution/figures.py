"""The figures of `attribution`, each where its rows were measured."""

from reports.attribution.ladder_figures import ladder_figure, meeting_figure
from reports.attribution.ladders import attribution
from reports.attribution.modes import floor_figure
from reports.attribution.scatter import scatter_figure
from reports.attribution.shares import predictors_figure, shapley_figure
from reports.drawing import Figure, style
from reports.run import Run


def attribution_figures(run: Run) -> list[Figure]:
    """The ladder, the ladder of MoBE, Shapley values, floors, predictors, losses against errors."""
    found = attribution(run)
    with style():
        made = [
            draw(run["model"], found)
            for draw in (ladder_figure, meeting_figure, shapley_figure, floor_figure, predictors_figure, scatter_figure)
        ]
    return [figure for figure in made if figure is not None]
