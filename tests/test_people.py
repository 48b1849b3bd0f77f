import numpy as np
import pytest

from lib.people import People, apply_affine, cells_to_pixels, invert_affine, oks, pixels_to_cells
from lib.skeleton import COCO17


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def people(rng, count=3, keypoints=4) -> People:
    points = np.concatenate(
        [rng.uniform(0, 100, (count, keypoints, 2)), rng.integers(0, 3, (count, keypoints, 1))], axis=2
    )
    return People(points, np.ones(count), rng.uniform(1, 50, (count, 4)), np.arange(count))


def random_affine(rng) -> np.ndarray:
    angle = rng.uniform(-np.pi, np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.concatenate([rng.uniform(0.5, 2) * turn, rng.uniform(-50, 50, (2, 1))], axis=1)


class TestPixels:
    def test_cells_lie_in_the_middle_of_their_pixels(self):
        assert cells_to_pixels(0, 4) == 1.5  # pixels 0, 1, 2, 3
        assert cells_to_pixels(2, 8) == np.mean(np.arange(16, 24))

    @pytest.mark.parametrize("stride", [1, 2, 4, 8, 0.5])
    def test_there_and_back(self, rng, stride):
        cells = rng.uniform(-5, 50, (6, 2))
        np.testing.assert_allclose(pixels_to_cells(cells_to_pixels(cells, stride), stride), cells)

    def test_stride_one_changes_nothing(self):
        assert cells_to_pixels(3.25, 1) == pixels_to_cells(3.25, 1) == 3.25

    def test_agrees_with_the_resize_that_draws_maps(self):
        import cv2

        ramp = np.tile(np.arange(8, dtype=np.float32), (8, 1))
        wide = cv2.resize(ramp, (32, 32), interpolation=cv2.INTER_LINEAR)
        inner = np.arange(2, 30)
        np.testing.assert_allclose(wide[16, inner], pixels_to_cells(inner, 4), atol=1e-4)


class TestAffine:
    def test_inverse(self, rng):
        affine, points = random_affine(rng), rng.uniform(-10, 10, (2, 5, 2))
        moved = apply_affine(affine, points)
        assert moved.shape == points.shape
        np.testing.assert_allclose(apply_affine(invert_affine(affine), moved), points, atol=1e-9)

    def test_same_direction_as_opencv(self, rng):
        import cv2

        affine, points = random_affine(rng), rng.uniform(-10, 10, (5, 2))
        np.testing.assert_allclose(apply_affine(affine, points), cv2.transform(points[None], affine)[0], atol=1e-9)


class TestPeople:
    def test_nobody(self):
        nobody = People.empty(17)
        assert len(nobody) == 0 and nobody.keypoints.shape == (0, 17, 3) and nobody.keypoints.dtype == np.float32
        assert nobody.boxes_around_keypoints().shape == (0, 4)
        assert nobody.warped(np.eye(2, 3)).keypoints.shape == (0, 17, 3)

    def test_nobody_with_boxes_can_be_warped(self):
        nobody = People(np.zeros((0, 4, 3)), np.zeros(0), np.zeros((0, 4)))
        assert nobody.warped(np.eye(2, 3)).boxes.shape == (0, 4)

    @pytest.mark.parametrize("which", [slice(1, 3), [2, 0], np.array([True, False, True])])
    def test_subset_keeps_everything_together(self, rng, which):
        everyone = people(rng)
        some = everyone[which]
        for field in ("keypoints", "scores", "boxes", "ids"):
            np.testing.assert_array_equal(getattr(some, field), getattr(everyone, field)[which])

    def test_shape_and_counts_are_checked(self):
        with pytest.raises(ValueError, match=r"\(P, K, 3\), got \(2, 34\)"):
            People(np.zeros((2, 34)), np.ones(2))
        with pytest.raises(ValueError, match="2 people but 3 scores"):
            People(np.zeros((2, 4, 3)), np.ones(3))
        with pytest.raises(ValueError, match="2 people but 1 boxes"):
            People(np.zeros((2, 4, 3)), np.ones(2), boxes=np.zeros((1, 4)))
        with pytest.raises(ValueError, match="2 people but 1 ids"):
            People(np.zeros((2, 4, 3)), np.ones(2), ids=np.zeros(1))

    def test_boxes_around_found_keypoints_only(self):
        points = np.array([[[10, 20, 2], [30, 60, 1], [999, 999, 0]], [[5, 5, 0], [6, 6, 0], [7, 7, 0]]])
        np.testing.assert_array_equal(People(points, np.ones(2)).boxes_around_keypoints(), [[10, 20, 20, 40], [0] * 4])


class TestWarped:
    def test_there_and_back(self, rng):
        everyone, affine = people(rng), random_affine(rng)
        back = everyone.warped(affine).warped(invert_affine(affine))
        np.testing.assert_allclose(back.keypoints, everyone.keypoints, atol=1e-3)

    def test_missing_keypoints_stay_where_they_are(self, rng):
        everyone = people(rng)
        missing = everyone.keypoints[..., 2] == 0
        assert missing.any()
        moved = everyone.warped(random_affine(rng))
        np.testing.assert_array_equal(moved.keypoints[missing], everyone.keypoints[missing])
        np.testing.assert_array_equal(moved.keypoints[..., 2], everyone.keypoints[..., 2])

    def test_boxes_move_and_scale(self):
        one = People(np.zeros((1, 1, 3)), np.ones(1), np.array([[10.0, 20, 30, 40]]))
        affine = np.array([[2.0, 0, 5], [0, 3, -7]])
        np.testing.assert_allclose(one.warped(affine).boxes, [[25, 53, 60, 120]])

    def test_box_of_a_quarter_turn_and_of_a_mirror_image_has_positive_sides(self):
        one = People(np.zeros((1, 1, 3)), np.ones(1), np.array([[10.0, 20, 30, 40]]))
        np.testing.assert_allclose(one.warped(np.array([[0.0, -1, 100], [1, 0, 0]])).boxes, [[40, 10, 40, 30]])
        np.testing.assert_allclose(one.warped(np.array([[-1.0, 0, 100], [0, 1, 0]])).boxes, [[60, 20, 30, 40]])

    def test_rotated_box_holds_its_corners(self, rng):
        one = People(np.zeros((1, 1, 3)), np.ones(1), np.array([[10.0, 20, 30, 40]]))
        affine = random_affine(rng)
        corners = apply_affine(affine, np.array([[10, 20], [40, 20], [10, 60], [40, 60.0]]))
        x, y, w, h = one.warped(affine).boxes[0]
        np.testing.assert_allclose(
            [x, y, x + w, y + h], [*corners.min(axis=0), *corners.max(axis=0)], rtol=1e-4, atol=1e-3
        )

    def test_original_stays(self, rng):
        everyone = people(rng)
        before = everyone.keypoints.copy(), everyone.boxes.copy()
        everyone.warped(random_affine(rng))
        np.testing.assert_array_equal(everyone.keypoints, before[0])
        np.testing.assert_array_equal(everyone.boxes, before[1])

    def test_scores_and_ids_travel(self, rng):
        moved = people(rng).warped(random_affine(rng))
        assert moved.scores.tolist() == [1, 1, 1] and moved.ids.tolist() == [0, 1, 2]


class TestOks:
    def test_equals_pycocotools(self, rng):
        truth = np.concatenate([rng.uniform(0, 200, (5, 17, 2)), rng.integers(0, 3, (5, 17, 1))], axis=2)
        truth[:, 0, 2] = 2  # nobody without a keypoint: COCO then measures the distance to the box instead
        found = np.concatenate(
            [truth[rng.integers(0, 5, 7), :, :2] + rng.normal(0, 6, (7, 17, 2)), np.ones((7, 17, 1))], 2
        )
        areas = rng.uniform(500, 20000, 5)
        np.testing.assert_allclose(
            oks(found, truth, areas, COCO17.sigmas), pycocotools_oks(found, truth, areas), atol=1e-7
        )

    def test_perfect_is_one_and_far_is_zero(self, rng):
        truth = np.concatenate([rng.uniform(0, 200, (1, 17, 2)), np.full((1, 17, 1), 2)], axis=2)
        assert oks(truth, truth, [1e4], COCO17.sigmas).item() == pytest.approx(1)
        assert oks(truth + [1e4, 0, 0], truth, [1e4], COCO17.sigmas).item() == pytest.approx(0, abs=1e-9)

    def test_one_keypoint_at_its_spread(self):
        truth = np.zeros((1, 17, 3))
        truth[0, 0] = (50, 50, 2)
        found = truth.copy()
        found[0, 0, 0] += 2 * COCO17.sigmas[0] * 100  # area 100²: exponent −1/2
        assert oks(found, truth, [1e4], COCO17.sigmas).item() == pytest.approx(np.exp(-0.5))

    def test_unlabelled_keypoints_do_not_count(self, rng):
        truth = np.concatenate([rng.uniform(0, 200, (1, 17, 2)), np.full((1, 17, 1), 2)], axis=2)
        truth[0, 5:, 2] = 0
        found = truth.copy()
        found[0, 5:, :2] += 1000
        assert oks(found, truth, [1e4], COCO17.sigmas).item() == pytest.approx(1)

    def test_without_any_label_it_is_zero(self):
        assert oks(np.zeros((2, 17, 3)), np.zeros((1, 17, 3)), [1e4], COCO17.sigmas).tolist() == [[0], [0]]

    def test_nobody(self):
        assert oks(np.zeros((0, 17, 3)), np.zeros((3, 17, 3)), np.ones(3), COCO17.sigmas).shape == (0, 3)
        assert oks(np.zeros((3, 17, 3)), np.zeros((0, 17, 3)), np.ones(0), COCO17.sigmas).shape == (3, 0)


def pycocotools_oks(found, truth, areas) -> np.ndarray:
    from pycocotools.cocoeval import COCOeval

    run = COCOeval(iouType="keypoints")
    run.params.imgIds, run.params.catIds = [1], [1]
    run._gts = {
        (1, 1): [{"keypoints": t.ravel().tolist(), "area": a, "bbox": [0, 0, 1, 1]} for t, a in zip(truth, areas)]
    }
    # COCO sorts detections by score: falling scores keep our order
    run._dts = {(1, 1): [{"keypoints": f.ravel().tolist(), "score": 1 - i / 100} for i, f in enumerate(found)]}
    return run.computeOks(1, 1)
