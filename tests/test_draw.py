import csv

import cv2
import numpy as np
import pytest

from lib.draw import (
    TRACKS,
    colour_wheel,
    draw_people,
    draw_skeleton,
    grid,
    heatmap_overlay,
    paf_overlay,
    palette,
    plot_history,
    save_picture,
    show,
    tag_limits,
    tag_overlay,
    track_colour,
)
from lib.people import People
from lib.skeleton import COCO17, COCO18_NECK, Skeleton
from lib.skeleton_layout import HUMAN, layout

TOY = Skeleton("toy", ["top", "left_foot", "right_foot"], [(0, 1), (0, 2)], [(1, 2)], [0.05] * 3)
GREY = np.full((120, 160, 3), 128, np.uint8)


def toy_people(visibility=(2, 2, 2)) -> People:
    return People([[[80, 20, visibility[0]], [120, 100, visibility[1]], [40, 100, visibility[2]]]], [1])


def is_warm(colour) -> bool:
    return int(colour[0]) > int(colour[2]) + 60


def is_cool(colour) -> bool:
    return int(colour[2]) > int(colour[0]) + 60


class TestPalette:
    def test_left_is_warm_right_is_cool_middle_is_grey(self):
        keypoints, limbs = palette(COCO18_NECK)
        for name, colour in zip(COCO18_NECK.keypoints, keypoints):
            assert is_warm(colour) == name.startswith("left") and is_cool(colour) == name.startswith("right")
        assert is_warm(limbs[COCO18_NECK.limbs.index((17, 5))])  # neck to left shoulder
        hips = limbs[COCO18_NECK.limbs.index((11, 12))]
        assert hips.max() == hips.min()

    def test_names_decide_when_a_pair_lists_the_right_one_first(self):
        swapped = Skeleton("toy", TOY.keypoints, TOY.limbs, [(2, 1)], TOY.sigmas)
        np.testing.assert_array_equal(palette(swapped)[0], palette(TOY)[0])

    def test_sides_differ_in_the_eyes_of_colour_blind_readers(self):
        keypoints = palette(COCO17)[0].astype(float) / 255
        for matrix in _DEFICIENCIES.values():
            seen = keypoints**2.2 @ matrix.T
            pairs = [np.abs(seen[a] - seen[b]).max() for a, b in COCO17.flip_pairs]
            assert min(pairs) > 0.15

    def test_skeleton_without_limbs_or_twins(self):
        keypoints, limbs = palette(Skeleton("dot", ["dot"], [], [], [0.05]))
        assert keypoints.shape == (1, 3) and limbs.shape == (0, 3)


class TestDrawPeople:
    def test_image_stays_and_nobody_changes_nothing(self):
        before = GREY.copy()
        drawn = draw_people(GREY, toy_people(), TOY)
        np.testing.assert_array_equal(GREY, before)
        assert (drawn != GREY).any()
        nobody = draw_people(GREY, People.empty(3), TOY)
        np.testing.assert_array_equal(nobody, GREY)
        assert nobody is not GREY and not np.shares_memory(nobody, GREY)

    def test_colours_lie_where_the_keypoints_are(self):
        drawn = draw_people(GREY, toy_people(), TOY)
        assert is_warm(drawn[100, 120]) and is_cool(drawn[100, 40])
        assert is_warm(drawn[60, 100]) and is_cool(drawn[60, 60])  # halfway along the limbs

    def test_pictures_are_exact_to_a_fraction_of_a_pixel(self):
        dot = Skeleton("dot", ["dot"], [], [], [0.05])
        drawn = draw_people(np.zeros((64, 64, 3), np.uint8), People([[[30.25, 20.5, 1]]], [1]), dot).astype(float)
        bright = (drawn.sum(axis=2) - 75).clip(0)
        y, x = (np.mgrid[:64, :64] * bright).sum(axis=(1, 2)) / bright.sum()
        assert x == pytest.approx(30.25, abs=0.2) and y == pytest.approx(20.5, abs=0.2)

    def test_hidden_and_doubtful_keypoints_are_hollow(self):
        shown = draw_people(GREY, toy_people((2, 2, 2)), TOY)
        hidden = draw_people(GREY, toy_people((2, 1, 2)), TOY)
        doubtful = draw_people(GREY, toy_people((0.9, 0.1, 0.9)), TOY)
        assert is_warm(shown[100, 120])
        assert hidden[100, 120].max() < 80 and doubtful[100, 120].max() < 80

    def test_missing_keypoints_take_their_limbs_along(self):
        drawn = draw_people(GREY, toy_people((2, 0, 2)), TOY)
        np.testing.assert_array_equal(drawn[:, 95:], GREY[:, 95:])

    def test_min_score(self):
        drawn = draw_people(GREY, toy_people((0.9, 0.4, 0.9)), TOY, min_score=0.5)
        np.testing.assert_array_equal(drawn[:, 95:], GREY[:, 95:])

    def test_lines_grow_with_the_image_and_shrink_with_the_person(self):
        def thickness(size, person):
            canvas = np.zeros((size, size, 3), np.uint8)
            middle = size // 2
            ends = [[[middle - person / 2, middle, 2], [middle + person / 2, middle, 2]]]
            line = Skeleton("line", ["a", "b"], [(0, 1)], [], [0.05] * 2)
            return (draw_people(canvas, People(ends, [1]), line)[:, middle].max(axis=1) > 100).sum()

        assert thickness(1200, 800) > thickness(400, 300) > thickness(400, 40)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e12])
    def test_impossible_coordinates_do_no_harm(self, value):
        people = toy_people()
        people.keypoints[0, 1, 0] = value
        drawn = draw_people(GREY, people, TOY)
        assert is_cool(drawn[100, 40])

    def test_keypoints_outside_the_image_are_cut_off(self):
        people = toy_people()
        people.keypoints[0, 1, :2] = 300, 500
        assert (draw_people(GREY, people, TOY) != GREY).any()

    def test_wrong_skeleton_and_wrong_image(self):
        with pytest.raises(ValueError, match="people have 3 keypoints, skeleton 'person' has 17"):
            draw_people(GREY, toy_people(), COCO17)
        with pytest.raises(ValueError, match=r"uint8, RGB; got float64 \(120, 160, 3\)"):
            draw_people(GREY.astype(float), toy_people(), TOY)
        with pytest.raises(ValueError, match=r"got uint8 \(120, 160\)"):
            draw_people(GREY[..., 0], toy_people(), TOY)

    def test_any_memory_layout(self):
        flipped = np.asfortranarray(GREY)[:, ::-1]
        np.testing.assert_array_equal(draw_people(flipped, toy_people(), TOY), draw_people(GREY, toy_people(), TOY))


class TestOverlays:
    def test_heatmap_lights_up_where_its_cell_lies(self):
        maps = np.zeros((3, 30, 40), np.float32)
        maps[1, 25, 30] = 1
        lit = heatmap_overlay(GREY, maps)
        y, x = np.unravel_index(lit.max(axis=2).argmax(), lit.shape[:2])
        assert abs(y - 101.5) <= 1 and abs(x - 121.5) <= 1
        assert is_warm(heatmap_overlay(GREY, maps, TOY)[101, 121])

    def test_values_outside_zero_to_one(self):
        maps = np.full((1, 30, 40), -3, np.float32)
        maps[0, :, 20:] = 7
        out = heatmap_overlay(GREY, maps)
        assert out.dtype == np.uint8 and out.shape == GREY.shape
        assert is_warm(out[60, 150]) and not is_warm(out[60, 10])

    def test_paf_hues_match_the_wheel(self):
        wheel = colour_wheel(101)
        for y, x in [(0, 1), (1, 0), (0, -1), (-1, 0), (0.7, 0.7)]:
            pafs = np.zeros((4, 30, 40), np.float32)
            pafs[2], pafs[3] = y, x
            at = wheel[round(50 + 35 * y), round(50 + 35 * x)]
            np.testing.assert_allclose(paf_overlay(GREY, pafs)[60, 80].astype(int), at.astype(int), atol=20)

    def test_wheel_is_white_around_and_inside(self):
        wheel = colour_wheel(64)
        assert wheel.shape == (64, 64, 3) and (wheel[0, 0] == 255).all() and (wheel[32, 32] == 255).all()

    def test_wrong_shapes(self):
        with pytest.raises(ValueError, match="pairs"):
            paf_overlay(GREY, np.zeros((3, 30, 40)))
        with pytest.raises(ValueError, match="3 axes"):
            heatmap_overlay(GREY, np.zeros((1, 3, 30, 40)))
        with pytest.raises(ValueError, match="5 heatmaps, but 'toy' has 3 keypoints"):
            heatmap_overlay(GREY, np.zeros((5, 30, 40)), TOY)


class TestGrid:
    def test_images_of_different_sizes_are_centred(self):
        tall, wide = np.zeros((40, 10, 3), np.uint8), np.full((10, 30, 3), 9, np.uint8)
        sheet = grid([tall, wide, tall], columns=2, gap=2)
        assert sheet.shape == (82, 62, 3)
        assert (sheet[:40, 10:20] == 0).all() and (sheet[15:25, 32:62] == 9).all()
        assert (sheet[42:, 32:] == 255).all()  # the empty cell

    def test_fewer_images_than_columns(self):
        assert grid([GREY], columns=4).shape == GREY.shape

    def test_nothing_to_show(self):
        with pytest.raises(ValueError, match="at least one image"):
            grid([])


class TestDrawSkeleton:
    @pytest.mark.parametrize("skeleton", [COCO17, COCO18_NECK, TOY, Skeleton("dot", ["dot"], [], [], [0.05])])
    def test_names_limbs_and_twins_are_all_there(self, skeleton, tmp_path):
        figure = draw_skeleton(skeleton)
        texts = [text.get_text() for text in figure.axes[0].texts]
        assert {f"{k} {name}" for k, name in enumerate(skeleton.keypoints)} <= set(texts)
        assert {str(k) for k in range(skeleton.num_limbs)} <= set(texts)
        assert len(figure.axes[0].lines) == len(skeleton.flip_pairs)
        figure.savefig(tmp_path / "skeleton.png")
        assert cv2.imread(str(tmp_path / "skeleton.png")).std() > 1

    def test_people_face_us(self):
        points = layout(COCO17)
        left, right = np.array(COCO17.flip_pairs).T
        assert (points[left, 0] > points[right, 0]).all()
        assert points[COCO17.index("nose"), 1] < points[COCO17.index("left_ankle"), 1]
        assert set(COCO18_NECK.keypoints) <= set(HUMAN)

    def test_unknown_names_are_laid_out_by_their_limbs(self):
        points = layout(TOY)
        assert points[1, 0] > points[2, 0] and points[0, 1] < points[1, 1]
        np.testing.assert_allclose(points[1] * [-1, 1], points[2], atol=1e-6)

    @pytest.mark.parametrize(
        "limbs", [[], [(0, 1), (1, 2), (2, 3), (3, 0)], [(0, 1), (2, 3)], [(0, 1), (0, 2), (0, 3)]]
    )
    def test_any_graph_keeps_its_points_apart(self, limbs):
        points = layout(Skeleton("graph", list("abcd"), limbs, [], [0.05] * 4))
        distances = np.linalg.norm(points[:, None] - points[None], axis=-1)[np.triu_indices(4, 1)]
        assert np.isfinite(points).all() and distances.min() > 0.3


class TestPlotHistory:
    rows = ({"epoch": 0, "step": 9, "train_loss": 2.0}, {"epoch": 0, "step": 9, "val_loss": 3.0, "AP": 0.1, "APm": -1.0},
            {"epoch": 1, "step": 19, "train_loss": 1.0}, {"epoch": 1, "step": 19, "val_loss": 2.0, "AP": 0.4})  # fmt: skip

    def curves(self, figure):
        return {line.get_label(): line.get_xydata().tolist() for axis in figure.axes for line in axis.lines}

    def test_rows(self):
        curves = self.curves(plot_history(self.rows))
        assert curves == {"train_loss": [[9, 2], [19, 1]], "val_loss": [[9, 3], [19, 2]], "AP": [[9, 0.1], [19, 0.4]]}

    def test_csv_with_empty_cells_gives_the_same(self, tmp_path):
        path = tmp_path / "metrics.csv"
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, ["epoch", "step", "train_loss", "val_loss", "AP", "APm"])
            writer.writeheader()
            writer.writerows(self.rows)
        assert self.curves(plot_history(path)) == self.curves(plot_history(self.rows))

    def test_without_rows_and_without_steps(self):
        assert self.curves(plot_history([])) == {}
        assert self.curves(plot_history([{"loss": 1.0}, {"loss": 0.5}])) == {"loss": [[0, 1], [1, 0.5]]}


def test_show_leaves_no_figure_open():
    import matplotlib.pyplot as plt

    figure = show(GREY, np.zeros((4, 4)), titles=["image", "map"])
    assert [axis.get_title() for axis in figure.axes] == ["image", "map"]
    assert not plt.get_fignums()


# How people without one kind of cones see linear RGB (Viénot, Brettel and Mollon 1999)
_DEFICIENCIES = {
    "protanopia": np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]),
    "deuteranopia": np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]),
}


class TestTracks:
    @staticmethod
    def people(*ids) -> People:
        people = People([[[80, 50, 1], [120, 100, 1], [40, 100, 1]]] * len(ids), [1] * len(ids))
        people.ids = np.array(ids, np.int64)
        return people

    def test_ids_change_nothing_unless_asked_for(self):
        without = self.people(7)
        without.ids = None
        plain = draw_people(GREY, without, TOY)
        np.testing.assert_array_equal(draw_people(GREY, self.people(7), TOY), plain)
        np.testing.assert_array_equal(draw_people(GREY, without, TOY, by_track=True), plain)
        assert (draw_people(GREY, self.people(7), TOY, by_track=True) != plain).any()

    def test_colour_belongs_to_the_id(self):
        for track in (1, 2, 13):
            drawn = draw_people(GREY, self.people(track), TOY, by_track=True)
            for middle in (drawn[75, 100], drawn[75, 60]):  # halfway along the limbs
                np.testing.assert_allclose(middle, track_colour(track), atol=12)
        assert track_colour(1) != track_colour(2) and track_colour(1) == track_colour(1 + len(TRACKS))

    def test_label_stands_over_the_head_and_nobody_has_none(self):
        head = lambda people: (draw_people(GREY, people, TOY, by_track=True)[:40] != GREY[:40]).any(axis=2).sum()
        assert head(self.people(3)) > 100 and head(self.people(0)) < 30

    def test_label_stays_inside_the_picture(self):
        for x, y in ((-500, -500), (0, 0), (159, 119), (1e9, 50)):
            people = self.people(123456789)
            people.keypoints[0, :, :2] += np.float32((x, y))
            draw_people(GREY, people, TOY, by_track=True)
        draw_people(np.zeros((4, 4, 3), np.uint8), self.people(5), TOY, by_track=True)

    def test_in_place(self):
        image = GREY.copy()
        assert draw_people(image, self.people(1), TOY, in_place=True) is image
        np.testing.assert_array_equal(image, draw_people(GREY, self.people(1), TOY))
        image.flags.writeable = False
        for fixed in (image, GREY[:, ::-1]):
            with pytest.raises(ValueError, match="in_place off"):
                draw_people(fixed, self.people(1), TOY, in_place=True)


def test_pictures_are_written_whole_and_without_a_word(tmp_path, capfd):
    image = np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8)
    save_picture(tmp_path / "new/a.png", image)
    save_picture(tmp_path / "new/a.jpg", np.full_like(image, (200, 30, 90)), quality=95)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "new/a.png"))[..., ::-1], image)
    assert np.abs(cv2.imread(str(tmp_path / "new/a.jpg"))[..., ::-1] - np.array([200.0, 30, 90])).max() < 6
    for suffix in (".nothing", ""):
        with pytest.raises(ValueError, match="30×20 pixels cannot be written"):
            save_picture(tmp_path / f"a{suffix}", image)
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["a.jpg", "a.png"] and capfd.readouterr() == ("", "")


def test_tags_have_one_colour_for_each_person_where_the_heatmaps_are():
    image = np.full((40, 80, 3), 200, np.uint8)
    heatmaps, tags = np.zeros((2, 10, 20), np.float32), np.zeros((2, 5, 10), np.float32)
    heatmaps[0, 5, 4] = heatmaps[1, 8, 4] = heatmaps[0, 5, 15] = 1
    tags[:, :, :5], tags[:, :, 5:] = -1, 3
    picture = tag_overlay(image, tags, heatmaps, limits=(-1, 3))
    a, b, c = picture[22, 18].astype(int), picture[34, 18].astype(int), picture[22, 62].astype(int)
    assert np.abs(a - b).max() <= 3 and np.abs(a - c).max() > 40
    assert np.ptp(picture[2, 40]) == 0, "grey where nothing is"
    assert tag_limits(tags[0], tags[0] > 0) == (1, 5) and tag_limits(tags[0] * np.nan, tags[0] > 0) == (-2, 2)
    assert tag_limits(10 * tags[0], tags[0] < 9) == (-10, 30)
    alone = np.where(tags > 0, np.float32(3), np.float32(2.8))
    picture = tag_overlay(image, alone, heatmaps)
    a, c = picture[22, 18].astype(int), picture[22, 62].astype(int)
    assert np.abs(a - c).max() < 40, "who is alone has one colour"
    everywhere = tag_overlay(image, tags[:1])
    assert (everywhere[2, 2] != everywhere[2, -2]).any()
