"""The picture of PCKh; those of a run's history are tested with the results folder."""

import numpy as np

from lib.metric_curves import pckh_figure


def test_a_line_for_each_curve_over_the_distance():
    figure = pckh_figure({"Wrist": np.linspace(0, 0.8, 51), "Total": np.linspace(0, 1, 51)}, "a model")
    axis = figure.axes[0]
    assert [line.get_label() for line in axis.lines] == ["Wrist 80.0", "Total 100.0"]
    assert axis.lines[0].get_linewidth() < axis.lines[1].get_linewidth() and axis.get_title() == "a model"
    distances = axis.lines[0].get_xdata()
    assert distances[0] == 0 and distances[-1] == 0.5 and axis.lines[0].get_ydata()[-1] == 80


def test_rows_of_which_nothing_is_labelled_are_left_out():
    figure = pckh_figure({"Knee": np.full(51, np.nan), "Total": np.ones(51)})
    assert [line.get_label() for line in figure.axes[0].lines] == ["Total 100.0"]
    assert pckh_figure({}).axes[0].get_legend() is None
