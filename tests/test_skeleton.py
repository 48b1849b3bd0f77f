import json
import pickle
import warnings

import numpy as np
import pytest
import yaml

from lib.skeleton import (
    BUILT_IN,
    COCO17,
    COCO18_NECK,
    COCO_SIGMAS,
    MPII14,
    MPII16,
    OPENPOSE18,
    Skeleton,
    flip_pairs_by_name,
)  # fmt: skip

CRANE = {
    "name": "crane",
    "keypoints": ["base", "left_jib", "right_jib", "hook"],
    "limbs": [["base", "left_jib"], ["base", "right_jib"], ["left_jib", "hook"]],
    "sigmas": {"base": 0.05, "left_jib": 0.06, "right_jib": 0.06, "hook": 0.07},
}


def skeleton(**changes) -> Skeleton:
    fields = {"name": "toy", "keypoints": ["a", "left_b", "right_b"], "limbs": [(0, 1), (0, 2)], "flip_pairs": [(1, 2)],
              "sigmas": [0.1, 0.2, 0.2]}  # fmt: skip
    return Skeleton(**fields | changes)


def write(tmp_path, data) -> str:
    path = tmp_path / "skeleton.yaml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
    return str(path)


class TestBuiltIn:
    def test_coco17_is_the_official_category(self):
        assert COCO17.num_keypoints == 17 and COCO17.num_limbs == 19
        assert COCO17.keypoints[:7] == ("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder",
                                        "right_shoulder")  # fmt: skip
        assert COCO17.keypoints[-2:] == ("left_ankle", "right_ankle")
        assert COCO17.limbs[0] == (15, 13) and COCO17.limbs[-1] == (4, 6)

    def test_coco17_sigmas_are_those_of_pycocotools(self):
        from pycocotools.cocoeval import Params

        np.testing.assert_allclose(COCO17.sigmas, Params(iouType="keypoints").kpt_oks_sigmas, atol=1e-9)

    def test_neck_follows_trt_pose(self):
        # NVIDIA's human_pose.json, 1-based
        links = [[16, 14], [14, 12], [17, 15], [15, 13], [12, 13], [6, 8], [7, 9], [8, 10], [9, 11], [2, 3], [1, 2],
                 [1, 3], [2, 4], [3, 5], [4, 6], [5, 7], [18, 1], [18, 6], [18, 7], [18, 12], [18, 13]]  # fmt: skip
        assert COCO18_NECK.to_coco()["skeleton"] == links
        assert COCO18_NECK.keypoints == (*COCO17.keypoints, "neck")
        assert COCO18_NECK.sigmas == (*COCO17.sigmas, COCO_SIGMAS["shoulder"])
        assert COCO18_NECK.flip_pairs == COCO17.flip_pairs

    def test_they_are_reachable_by_name(self):
        assert BUILT_IN == {
            "coco17": COCO17, "coco18_neck": COCO18_NECK, "mpii16": MPII16, "mpii14": MPII14, "openpose18": OPENPOSE18,
        }  # fmt: skip

    def test_openpose_has_cocos_keypoints_and_neck_in_its_own_order(self):
        assert set(OPENPOSE18.keypoints) == set(COCO18_NECK.keypoints)
        assert OPENPOSE18.index("neck") == 1 and OPENPOSE18.num_limbs == 19
        assert dict(zip(OPENPOSE18.keypoints, OPENPOSE18.sigmas)) == dict(zip(COCO18_NECK.keypoints, COCO18_NECK.sigmas))
        # published pairs, 0-based, in the order of the fields
        assert OPENPOSE18.limbs == ((1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13), (1, 2), (2, 3), (3, 4), (2, 16),
                                    (1, 5), (5, 6), (6, 7), (5, 17), (1, 0), (0, 14), (0, 15), (14, 16), (15, 17))  # fmt: skip
        twins, signs = OPENPOSE18.limb_flip
        assert sorted(twins) == list(range(19)) and (signs == 1).all()


class TestNeck:
    def test_twice_is_an_error(self):
        with pytest.raises(ValueError, match="has a neck already"):
            COCO18_NECK.with_neck()

    def test_needs_shoulders(self):
        with pytest.raises(KeyError, match="nose"):
            skeleton().with_neck()

    def test_leaves_the_original_alone(self):
        before = COCO17.to_dict()
        COCO17.with_neck()
        assert COCO17.to_dict() == before


class TestFlip:
    def test_flip_index_swaps_twins_and_is_its_own_inverse(self):
        index = COCO18_NECK.flip_index
        assert index.dtype.kind == "i"
        np.testing.assert_array_equal(index[index], np.arange(18))
        assert COCO18_NECK.keypoints[index[COCO18_NECK.index("left_wrist")]] == "right_wrist"
        assert index[COCO18_NECK.index("nose")] == COCO18_NECK.index("nose")

    @pytest.mark.parametrize("figure", [COCO17, COCO18_NECK])
    def test_limb_flip_maps_every_limb_onto_its_mirror_image(self, figure):
        twins, signs = figure.limb_flip
        for k, (a, b) in enumerate(figure.limbs):
            mirrored = (figure.flip_index[a], figure.flip_index[b])
            twin = figure.limbs[twins[k]]
            assert twin == mirrored if signs[k] == 1 else twin[::-1] == mirrored

    def test_limb_between_twins_is_its_own_twin_the_other_way_round(self):
        twins, signs = COCO17.limb_flip
        hips = COCO17.limbs.index((COCO17.index("left_hip"), COCO17.index("right_hip")))
        assert twins[hips] == hips and signs[hips] == -1
        assert (signs == -1).sum() == 3  # hips, shoulders, eyes

    def test_twin_which_is_listed_the_other_way_round(self):
        twins, signs = skeleton(limbs=[(0, 1), (2, 0)]).limb_flip
        assert twins.tolist() == [1, 0] and signs.tolist() == [-1, -1]

    def test_limb_without_twin(self):
        twins, _ = skeleton(limbs=[(0, 1)]).limb_flip
        assert twins.tolist() == [-1]


class TestFlipPairsByName:
    @pytest.mark.parametrize("left, right", [
        ("left_eye", "right_eye"), ("eye_left", "eye_right"), ("LeftEye", "RightEye"), ("l_eye", "r_eye"),
        ("eye_l", "eye_r"), ("l-eye", "r-eye"), ("L_eye", "R_eye"), ("LEye", "REye"), ("eye_L", "eye_R"),
        ("left", "right"), ("front left paw", "front right paw"),
    ])  # fmt: skip
    def test_spellings(self, left, right):
        assert flip_pairs_by_name(["nose", right, left]) == ((2, 1),)

    def test_names_which_only_look_like_a_side(self):
        assert flip_pairs_by_name(["lip", "rip", "level", "tail", "tair", "left_eye"]) == ()

    def test_coco(self):
        assert flip_pairs_by_name(COCO17.keypoints) == tuple((k, k + 1) for k in range(1, 17, 2))


class TestFromCoco:
    def test_round_trip(self):
        assert Skeleton.from_coco(COCO18_NECK.to_coco()) == COCO18_NECK

    def test_own_sigmas_win(self):
        assert Skeleton.from_coco(skeleton().to_coco()).sigmas == (0.1, 0.2, 0.2)

    def test_unknown_names_get_a_default_and_a_warning_that_names_them(self):
        category = {"name": "drill", "keypoints": ["tip", "left_wrist"], "skeleton": []}
        with pytest.warns(UserWarning, match="tip.*0.05") as caught:
            drill = Skeleton.from_coco(category)
        assert "'drill' borrows people's sigmas for left_wrist" in str(caught[0].message)
        assert drill.sigmas == (0.05, COCO_SIGMAS["wrist"]) and drill.limbs == ()

    def test_known_names_do_not_warn(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            Skeleton.from_coco({"name": "person", "keypoints": ["nose", "left_eye"]})
            Skeleton.from_coco({"name": "robot", "keypoints": ["wrist", "tip"], "sigmas": [0.1, 0.1]})

    @pytest.mark.parametrize("category", [{"name": "car"}, {"name": "car", "keypoints": []},
                                          {"name": "car", "keypoints": None}])  # fmt: skip
    def test_without_keypoints(self, category):
        with pytest.raises(ValueError, match="'car' has no keypoints"):
            Skeleton.from_coco(category)

    def test_link_beyond_the_keypoints(self):
        with pytest.raises(ValueError, match=r"has 2 keypoints, limbs \(0, 2\)"):
            Skeleton.from_coco({"name": "p", "keypoints": ["nose", "left_eye"], "skeleton": [[1, 3]]})

    def test_link_counted_from_zero(self):
        with pytest.raises(ValueError, match=r"limbs \(-1, 0\)"):
            Skeleton.from_coco({"name": "p", "keypoints": ["nose", "left_eye"], "skeleton": [[0, 1]]})


class TestFromYaml:
    def test_names_and_sigmas_by_name(self, tmp_path):
        crane = Skeleton.from_yaml(write(tmp_path, CRANE))
        assert crane.limbs == ((0, 1), (0, 2), (1, 3)) and crane.flip_pairs == ((1, 2),)
        assert crane.sigmas == (0.05, 0.06, 0.06, 0.07)

    def test_indices_and_lists(self, tmp_path):
        crane = Skeleton.from_yaml(write(tmp_path, CRANE | {"limbs": [[0, 1]], "flip_pairs": [], "sigmas": [0.1] * 4}))
        assert crane.limbs == ((0, 1),) and crane.flip_pairs == () and crane.sigmas == (0.1,) * 4

    def test_without_sigmas(self, tmp_path):
        with pytest.warns(UserWarning, match="base, left_jib, right_jib, hook"):
            crane = Skeleton.from_yaml(write(tmp_path, {k: v for k, v in CRANE.items() if k != "sigmas"}))
        assert crane.sigmas == (0.05,) * 4

    @pytest.mark.parametrize("change, message", [
        ({"limbs": [["base", "hok"]]}, "limbs.*hok.*base, left_jib, right_jib, hook"),
        ({"flip_pairs": [["left", "right_jib"]]}, "flip_pairs.*left"),
        ({"limbs": [[0, 9]]}, "has 4 keypoints"),
        ({"limbs": [["base", "base"]]}, "not a pair"),
        ({"limbs": [["base", "hook"], ["hook", "base"]]}, "lists a limb twice"),
        ({"sigmas": [0.1, 0.2]}, "4 keypoints but 2 sigmas"),
        ({"sigmas": {"base": 0.1}}, "sigmas must name every keypoint once"),
        ({"sigmas": [0.1, 0.1, 0.1, 0]}, "sigmas must be positive"),
        ({"keypoints": ["base", "base"], "limbs": [], "sigmas": [0.1, 0.1]}, "unique"),
        ({"flip_pairs": [[1, 2], [2, 3]]}, "two flip_pairs"),
    ])  # fmt: skip
    def test_errors_name_the_file_and_the_trouble(self, tmp_path, change, message):
        path = write(tmp_path, CRANE | change)
        with pytest.raises(ValueError, match=message) as error:
            Skeleton.from_yaml(path)
        assert path in str(error.value)

    @pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words", "name: crane\nkeypoints: [a]\n"])
    def test_not_a_skeleton_file(self, tmp_path, text):
        with pytest.raises(ValueError, match="needs the keys name, keypoints and limbs"):
            Skeleton.from_yaml(write(tmp_path, text))

    @pytest.mark.parametrize("text", [
        "name: x\nkeypoints: [a, b]\nlimbs: [[a, b, a]]\nsigmas: [0.1, 0.1]\n",
        "name: [unclosed",
        "name: x\nkeypoints:\nlimbs: []\n",
        "name: x\nkeypoints: [a, b]\nlimbs: [3]\n",
        "name: x\nkeypoints: [a, b]\nlimbs:\n",
    ])  # fmt: skip
    @pytest.mark.filterwarnings("ignore:no sigma known")
    def test_broken_yaml_is_one_error_that_names_the_file(self, tmp_path, text):
        path = write(tmp_path, text)
        with pytest.raises(ValueError, match="skeleton.yaml"):
            Skeleton.from_yaml(path)

    def test_code_in_yaml_is_not_run(self, tmp_path):
        path = write(tmp_path, "name: !!python/object/apply:os.getcwd []\nkeypoints: [a]\nlimbs: []\n")
        with pytest.raises((ValueError, yaml.YAMLError)):
            Skeleton.from_yaml(path)


class TestChecks:
    @pytest.mark.parametrize("change, message", [
        ({"keypoints": [], "limbs": [], "flip_pairs": [], "sigmas": []}, "unique keypoint names"),
        ({"sigmas": [0.1] * 5}, "'toy' has 3 keypoints but 5 sigmas"),
        ({"sigmas": [0.1, 0.1, -0.1]}, "positive"),
        ({"sigmas": [0.1, 0.1, float("nan")]}, "positive"),
        ({"limbs": [(0, 3)]}, "0-based"),
        ({"limbs": [(-1, 0)]}, "0-based"),
        ({"limbs": [(1, 1)]}, "not a pair"),
        ({"limbs": [(0, 1), (1, 0)]}, "twice"),
        ({"flip_pairs": [(1, 5)]}, "flip_pairs"),
        ({"flip_pairs": [(1, 2), (1, 2)]}, "two flip_pairs"),
    ])  # fmt: skip
    def test_bad_fields(self, change, message):
        with pytest.raises(ValueError, match=message):
            skeleton(**change)

    def test_limbs_may_form_cycles(self):
        assert skeleton(limbs=[(0, 1), (1, 2), (2, 0)]).num_limbs == 3

    def test_unknown_keypoint_names_the_nearest(self):
        with pytest.raises(KeyError, match="did you mean 'left_wrist'"):
            COCO17.index("left_wirst")
        with pytest.raises(KeyError, match="it has a, left_b, right_b"):
            skeleton().index("zzz")


class TestValue:
    def test_lists_and_tuples_are_equal_and_hashable(self):
        assert skeleton() == skeleton(keypoints=("a", "left_b", "right_b"), limbs=[[0, 1], [0, 2]])
        assert len({skeleton(), skeleton()}) == 1

    def test_dict_round_trip_through_json(self):
        import json

        assert Skeleton(**json.loads(json.dumps(COCO18_NECK.to_dict()))) == COCO18_NECK

    def test_survives_a_worker_process(self):
        figure = skeleton()
        _ = figure.flip_index
        assert pickle.loads(pickle.dumps(figure)) == figure

    def test_is_frozen(self):
        with pytest.raises(AttributeError):
            COCO17.name = "other"


class TestMpii:
    def test_the_fourteen_are_the_sixteen_in_deepercuts_order(self):
        order = [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15, 8, 9]
        assert MPII14.keypoints == tuple(MPII16.keypoints[i] for i in order)
        assert MPII16.keypoints[6:10] == ("pelvis", "thorax", "upper_neck", "head_top")

    @pytest.mark.parametrize("name", ["mpii16", "mpii14"])
    def test_everything_is_tied_together_and_has_its_twin(self, name):
        s = BUILT_IN[name]
        reached = {0}
        for _ in s.limbs:
            reached |= {end for limb in s.limbs if reached & set(limb) for end in limb}
        assert reached == set(range(s.num_keypoints))
        assert len(s.flip_pairs) == 6 and (s.limb_flip[0] >= 0).all()


class TestNamed:
    def test_built_in_yaml_and_coco(self, tmp_path):
        assert Skeleton.named("coco17") is COCO17
        assert Skeleton.named(write(tmp_path, CRANE)).keypoints == tuple(CRANE["keypoints"])
        path = tmp_path / "file.json"
        path.write_text(json.dumps({"categories": [{"id": 3, "name": "box"}, MPII16.to_coco()]}))
        assert Skeleton.named(path) == MPII16

    def test_errors_say_the_way_out(self, tmp_path):
        with pytest.raises(ValueError, match="did you mean 'coco17'"):
            Skeleton.named("coco_17")
        path = tmp_path / "file.json"
        for content, message in (("[]", "not a COCO file"), ("{", "not a COCO file"),
                                 ('{"categories": []}', "exactly one .* found none")):  # fmt: skip
            path.write_text(content)
            with pytest.raises(ValueError, match=message):
                Skeleton.named(path)
        with pytest.raises(FileNotFoundError):
            Skeleton.named(tmp_path / "no.yaml")


@pytest.mark.parametrize(("change", "message"), [({"keypoints": ["a", 1]}, "keypoints are names"),
                                                 ({"skeleton": [[1, None]]}, "pairs of keypoints counted from 1"),
                                                 ({"skeleton": [[1]]}, "pairs of keypoints counted from 1"),
                                                 ({"skeleton": [3]}, "pairs of keypoints counted from 1")])  # fmt: skip
def test_categories_written_by_hand(change, message):
    with pytest.raises(ValueError, match=message):
        Skeleton.from_coco({"name": "toy", "keypoints": ["a", "b"], "sigmas": [0.1, 0.1]} | change)


def test_a_name_that_yaml_takes_for_a_number(tmp_path):
    with pytest.raises(ValueError, match="skeleton.yaml: keypoints are names"):
        Skeleton.from_yaml(write(tmp_path, {"name": "toy", "keypoints": ["a", 1], "limbs": []}))
