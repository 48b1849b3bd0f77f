import numpy as np
import pytest

from lib.draw import track_colour
from lib.draw_graph import ATTRACTS, REPELS, draw_graph

WHITE = np.full((350, 350, 3), 255, np.uint8)
PLACES = np.array([[100, 100], [100, 250], [250, 100], [250, 250]])
EDGES, WEIGHTS = np.array([[0, 1], [2, 3], [0, 2]]), np.array([-6.0, -6.0, 6.0])


def there(picture, x, y, colour, radius=6) -> bool:
    """Whether a pixel near (x, y) has about this colour."""
    near = picture[y - radius : y + radius + 1, x - radius : x + radius + 1].astype(int)
    return bool((np.abs(near - colour).max(axis=2) < 12).any())


def test_before_the_cut_edges_attract_or_repel():
    picture = draw_graph(WHITE, PLACES, EDGES, WEIGHTS)
    assert there(picture, 100, 175, ATTRACTS) and there(picture, 250, 175, ATTRACTS)
    assert there(picture, 175, 100, REPELS) and not there(picture, 175, 100, ATTRACTS)
    assert not there(picture, 175, 175, ATTRACTS) and not there(picture, 175, 175, REPELS)
    assert (WHITE == 255).all()


def test_after_the_cut_clusters_have_colours_and_the_suppressed_are_rings():
    picture = draw_graph(WHITE, PLACES, EDGES, WEIGHTS, [0, 0, 1, -1])
    assert (picture[100, 100] == track_colour(1)).all() and (picture[100, 250] == track_colour(2)).all()
    assert (picture[250, 250] == 255).all()  # hollow
    assert there(picture, 100, 175, ATTRACTS)  # inside a cluster
    assert not there(picture, 250, 175, ATTRACTS) and not there(picture, 175, 100, REPELS)  # cut: pale


def test_strong_edges_are_thick():
    def ink(weight):
        return (draw_graph(WHITE, PLACES, EDGES[:1], [weight])[175] < 200).any(axis=1).sum()

    assert ink(-0.1) < ink(-6) == ink(-60)


def test_repelling_edges_can_be_left_out():
    picture = draw_graph(WHITE, PLACES, EDGES, WEIGHTS, repelling=False)
    assert there(picture, 100, 175, ATTRACTS) and not there(picture, 175, 100, REPELS)


def test_names_and_numbers_are_written_inside_the_picture():
    plain = draw_graph(WHITE, PLACES, EDGES, WEIGHTS)
    named = draw_graph(WHITE, PLACES, EDGES, WEIGHTS, names=["head", "hip", "foot", "lamp"], numbers=True)
    assert (plain != named).any(axis=2)[60:95, 80:120].any()
    edge = draw_graph(WHITE[:20, :20], [[0, 0]], [], [], names=["somewhere"])
    assert edge.shape == (20, 20, 3)


def test_nothing_far_away_and_not_finite():
    assert draw_graph(WHITE, [], [], []).shape == WHITE.shape
    places = np.array([[1e30, -1e30], [np.nan, 5], [100, 100], [250, 250]])
    picture = draw_graph(WHITE, places, [[0, 2], [1, 2]], [-1.0, 1.0], [0, 0, 0, -1], numbers=True)
    assert (picture[100, 100] == track_colour(1)).all()


def test_a_photograph_fades():
    dark = np.zeros((50, 60, 3), np.uint8)
    assert draw_graph(dark, [], [], []).min() > 140


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        ((WHITE[..., 0], PLACES, EDGES, WEIGHTS), "RGB"),
        ((WHITE, PLACES, EDGES, WEIGHTS[:2]), r"weights \(2,\)"),
        ((WHITE, PLACES[:3], EDGES, WEIGHTS), "graph of 3 places"),
        ((WHITE, PLACES, EDGES, WEIGHTS, [0, 1]), "as many labels, got 2"),
    ],
)
def test_what_does_not_fit(graph, said):
    with pytest.raises(ValueError, match=said):
        draw_graph(*graph)


def test_names_that_do_not_fit():
    with pytest.raises(ValueError, match="as many names, got 1"):
        draw_graph(WHITE, PLACES, EDGES, WEIGHTS, names=["head"])
