"""Regressions of pairs: what is drawn from a picture, what is learnt from it, and the command."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import scipy.io

from lib.__main__ import main
from lib.checkpoints import load_model, save_model
from lib.codecs import pair_model
from lib.codecs.pair_model import Samples, draw_samples, fit_pair_model, read_published
from lib.codecs.parts import PartsCodec
from lib.models import NETWORKS
from lib.skeleton import Skeleton
from tests.dots import write_poles
from tests.part_dots import PartDots, part_model

TRIO = Skeleton("trio", ("a", "b", "c"), ((0, 1), (1, 2)), (), (0.05,) * 3)
CODEC = PartsCodec(TRIO, pair_stats=((0.0, 0.0, 20.0, 20.0),) * 6)


@pytest.fixture(autouse=True)
def networks(monkeypatch):
    monkeypatch.setitem(NETWORKS, "PartDots", PartDots)


def scene(rng, people=2, size=(16, 24), error=0.1):
    """People somewhere, and maps which know the ways of whoever is nearest, with an error in standard deviations."""
    keypoints = np.concatenate(
        [rng.uniform(20, 110, (people, 3, 2)) + rng.uniform(0, 60), np.full((people, 3, 1), 2)], axis=2
    )
    y, x = np.mgrid[: size[0], : size[1]] * 8 + 3.5
    apart = np.hypot(x - keypoints[..., 0, None, None], y - keypoints[..., 1, None, None])  # (P, K, h, w)
    heatmaps, owner = (apart.min(axis=0) <= 17) * 0.8, apart.argmin(axis=0)
    pairwise = np.empty((6, 2, *size))
    for p, (a, b) in enumerate((a, b) for a in range(3) for b in range(3) if a != b):
        ends = keypoints[owner[a], b, :2]
        pairwise[p] = ((ends[..., 0] - x) / 20, (ends[..., 1] - y) / 20)
    near = keypoints[owner, np.arange(3)[:, None, None], :2]
    offsets = np.stack([near[..., 0] - x, near[..., 1] - y], axis=1) / 7.2801
    offsets *= (apart.min(axis=0) <= 17)[:, None]
    pairwise += rng.normal(0, error, pairwise.shape)
    maps = {"heatmaps": heatmaps, "offsets": offsets.reshape(6, *size), "pairwise": pairwise.reshape(12, *size)}
    return {name: values.astype(np.float32) for name, values in maps.items()}, keypoints


def drawn(count=30, **options):
    rng = np.random.default_rng(0)
    return Samples.joined(draw_samples(*scene(rng, **options), CODEC, rng, radius=17) for _ in range(count))


def test_half_of_the_samples_are_of_one_person():
    samples = drawn()
    assert set(samples.pairs.tolist()) == {0, 1, 2} and np.isfinite(samples.features).all()
    assert 0.45 < samples.same.mean() < 0.6
    # of one person the maps know the way, of others it is elsewhere
    right, wrong = (samples.features[samples.same == same][:, 0] for same in (True, False))
    assert np.median(right) < 6 and np.median(wrong) > 25
    np.testing.assert_allclose(samples.features[:, 4:], np.exp(-samples.features[:, :4]), rtol=1e-5, atol=1e-30)


def test_who_is_alone_has_wrong_cells_too():
    samples = drawn(people=1)
    assert (~samples.same).sum() > 100


def test_nobody_and_one_keypoint_give_no_samples():
    rng = np.random.default_rng(0)
    maps, keypoints = scene(rng)
    for people in (keypoints[:0], keypoints * 0, keypoints * [[[1], [0], [0]]]):
        assert len(draw_samples(maps, people, CODEC, rng, radius=17).pairs) == 0
    assert Samples.joined([]).features.shape == (0, 8)


def test_nothing_is_drawn_where_nobody_is_labelled():
    rng = np.random.default_rng(1)
    maps, keypoints = scene(rng)
    mask = np.zeros((16, 24))
    assert len(draw_samples(maps, keypoints, CODEC, rng, radius=17, mask=mask).pairs) == 0


def test_regressions_tell_pairs_apart():
    samples = drawn()
    fit = fit_pair_model(samples, TRIO, np.random.default_rng(0))
    assert (fit.right > 0.9).all() and (fit.positives >= 50).all()
    codec = replace(CODEC, pair_model=fit.rows)
    rng, told = np.random.default_rng(5), []
    for _ in range(10):
        maps, keypoints = scene(rng)
        people = codec.decode(maps)
        apart = np.linalg.norm(people.keypoints[:, None, :, :2] - keypoints[None, :, :, :2], axis=-1)
        told.append((apart.mean(axis=2) < 12).any(axis=0).mean())
    assert np.mean(told) > 0.6


def test_a_weak_penalty_is_surer_than_deepercuts():
    samples = drawn()
    hard, soft = (fit_pair_model(samples, TRIO, np.random.default_rng(0), penalty_c=c) for c in (1e-3, 10.0))
    assert np.abs(hard.rows[0][16:]).max() < 1 < np.abs(soft.rows[0][16:]).max()
    assert (soft.right >= hard.right).all()


def test_a_pair_with_few_samples_keeps_the_rule():
    samples = drawn()
    few = samples.pairs != 1
    few[np.flatnonzero(~few)[:20]] = True
    fit = fit_pair_model(Samples(*(values[few] for values in samples)), TRIO, np.random.default_rng(0))
    assert [row is None for row in fit.rows] == [False, True, False] and np.isnan(fit.right[1])


def test_samples_that_are_not_finite_are_left_out():
    samples = drawn()
    samples.features[::3, 0] = np.nan
    fit = fit_pair_model(samples, TRIO, np.random.default_rng(0))
    assert np.isfinite(fit.rows).all()


@pytest.fixture
def poles(tmp_path):
    data = write_poles(tmp_path / "poles", 12)
    return data, save_model(tmp_path / "model.safetensors", part_model(radius=6.0), half=True)


def fit_command(model, data, *more):
    return main(["pairwise-fit", str(model), "--data_dir", str(data), *map(str, more)])


def test_the_command_writes_the_model_with_regressions(poles, tmp_path, capsys):
    data, model = poles
    size, out = model.stat().st_size, tmp_path / "fitted.safetensors"
    assert fit_command(model, data, "--out", out, "--least", 10) == 0
    said = capsys.readouterr().out
    assert "1 pairs of keypoints" in said and "1 of 1 pairs have a regression" in said
    before, after = load_model(model), load_model(out)
    assert before.codec.pair_model is None and len(after.codec.pair_model[0]) == 25
    assert replace(after.codec, pair_model=None) == before.codec
    assert after.info["pair_model"]["penalty_c"] == 1 and out.stat().st_size < size + 2000  # still float16
    # the same seed gives the same file; without --out the model itself is replaced
    assert fit_command(model, data, "--least", 10) == 0
    assert model.read_bytes() == out.read_bytes()


def test_the_pictures_of_a_recipe_are_taken(poles, tmp_path, capsys):
    data, model = poles
    recipe = tmp_path / "dots.yaml"
    recipe.write_text(f"""
model: {{network: {{name: PartDots}}, codec: {{name: PartsCodec}}}}
data: {{data_dir: {data}, input_size: [96, 128], mask_stride: 8, num_workers: 0}}
""")
    assert main(["pairwise-fit", str(model), "--recipe", str(recipe), "--least", "10"]) == 0
    assert "1 of 1 pairs have a regression" in capsys.readouterr().out


def test_too_few_samples_are_one_sentence(poles, capsys):
    data, model = poles
    before = model.read_bytes()
    assert fit_command(model, data, "--least", 100000) == 1
    assert "no pair of keypoints has 100000 samples" in capsys.readouterr().err
    assert model.read_bytes() == before


def test_pairs_with_few_samples_are_named():
    from lib.pairwise import _summary

    fit = pair_model.Fit(
        (None, (0.0,) * 25, None),
        np.array([0, 60, 0]),
        np.array([np.nan, 0.9, np.nan]),
        np.array([np.nan, 0.8, np.nan]),
    )
    assert "fewer than 50 samples, so these keep the built-in rule: a–b, b–c" in _summary(fit, TRIO, 50)


@pytest.mark.parametrize("wrong, sentence", [
    ([], "name exactly one of"),
    (["--data_dir", "nowhere", "--published", "there"], "name exactly one of"),
    (["--data_dir", "nowhere"], "no 'train' split"),
    (["--published", "nowhere"], "there are no spatial_model_cidx"),
    (["--data_dir", "nowhere", "--pictures", "-5"], "1 or more and penalty_c is above 0, got -5, 20, 50 and 1"),
    (["--data_dir", "nowhere", "--penalty_c", "0"], "penalty_c is above 0, got 500, 20, 50 and 0"),
    (["--data_dir", "nowhere", "--out", "model.onnx"], "model.onnx: what is written is a checkpoint"),
])  # fmt: skip
def test_wrong_arguments_are_one_sentence(poles, capsys, wrong, sentence):
    assert main(["pairwise-fit", str(poles[1]), *wrong]) == 1
    assert sentence in capsys.readouterr().err


def test_a_model_without_pairs_is_refused(tmp_path, capsys):
    network = part_model()
    network.codec = replace(network.codec, pair_stats=None)
    path = save_model(tmp_path / "none.safetensors", network)
    assert fit_command(path, "nowhere") == 1
    assert "pair_stats" in capsys.readouterr().err


def write_published(folder, pairs, k=3, numbers=8):
    rng = np.random.default_rng(0)
    for a, b in pairs:
        model = {"training_opts": {"X_min": rng.random((1, numbers)), "X_max": 1 + rng.random((1, numbers))},
                 "log_reg": {"w": rng.normal(0, 1, (1, 9))}}  # fmt: skip
        scipy.io.savemat(folder / f"spatial_model_cidx_{a + 1}_{b + 1}.mat", {"spatial_model": model})


def test_published_regressions_are_read(tmp_path):
    write_published(tmp_path, [(0, 1), (1, 2)])
    rows = read_published(tmp_path, TRIO)
    assert rows[1] is None
    content = scipy.io.loadmat(tmp_path / "spatial_model_cidx_2_3.mat")["spatial_model"][0, 0]
    options, weights = content["training_opts"][0, 0], content["log_reg"][0, 0]["w"]
    np.testing.assert_array_equal(rows[2], np.concatenate([options["X_min"][0], options["X_max"][0], weights[0]]))
    assert replace(CODEC, pair_model=rows).pair_tables.fitted.sum() == 2


def test_published_regressions_of_other_keypoints_are_refused(tmp_path):
    write_published(tmp_path, [(0, 1), (2, 3)])
    with pytest.raises(ValueError, match=r"cidx_3_4.*no pair A < B of the 3 keypoints"):
        read_published(tmp_path, TRIO)


def test_a_damaged_published_file_is_named(tmp_path):
    write_published(tmp_path, [*combinations(range(3), 2)], numbers=7)
    with pytest.raises(ValueError, match="cidx_1_2.mat: X_min, X_max and w must be 8, 8 and 9"):
        read_published(tmp_path, TRIO)
    (tmp_path / "spatial_model_cidx_1_2.mat").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="cidx_1_2.mat: not a MATLAB file"):
        read_published(tmp_path, TRIO)
    scipy.io.savemat(tmp_path / "spatial_model_cidx_1_2.mat", {"other": 1})
    with pytest.raises(ValueError, match="cidx_1_2.mat: no spatial_model"):
        read_published(tmp_path, TRIO)


def test_the_published_command_needs_no_pictures(tmp_path, poles):
    write_published(tmp_path, [(0, 1)])
    assert main(["pairwise-fit", str(poles[1]), "--published", str(tmp_path)]) == 0
    assert load_model(poles[1]).info["pair_model"] == {"published": tmp_path.name}
