import cv2
import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from lib.data.augment import (
    Augment,
    ColorJitter,
    fit_affine,
    in_picture,
    read_image,
    read_reduced,
    reduced_affine,
    reduction_for,
    warp,
)
from lib.people import apply_affine, invert_affine


def homogeneous(affine):
    return np.vstack([affine, [0, 0, 1]])


def blobs(points, size=(240, 320), sigma=6.0):
    """Smooth white spots on black, (H, W, 3) uint8."""
    y, x = np.mgrid[: size[0], : size[1]]
    spots = [np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * sigma**2)) for px, py in points]
    return np.repeat((255 * np.max(spots, axis=0)).astype(np.uint8)[..., None], 3, axis=2)


def centre_of(image):
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    weight = image[..., 0].astype(float)
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


def test_fit_keeps_borders_and_aspect():
    letterbox = fit_affine((480, 640), (224, 224))
    # pixel borders lie half a pixel outside the first and last centre
    corners = np.array([[-0.5, -0.5], [639.5, 479.5]])
    np.testing.assert_allclose(apply_affine(letterbox, corners), [[-0.5, 27.5], [223.5, 195.5]])
    stretched = fit_affine((480, 640), (224, 224), keep_aspect_ratio=False)
    np.testing.assert_allclose(apply_affine(stretched, corners), [[-0.5, -0.5], [223.5, 223.5]])
    np.testing.assert_allclose(fit_affine((96, 64), (96, 64)), [[1, 0, 0], [0, 1, 0]], atol=1e-12)


def test_nothing_random_is_the_fit():
    still = Augment(scale=(1, 1), rotation=0, translation=0, flip=0)
    for keep in (True, False):
        affine, flipped = still.sample(np.random.default_rng(0), (100, 50), (64, 96), keep)
        np.testing.assert_allclose(affine, fit_affine((100, 50), (64, 96), keep), atol=1e-12)
        assert not flipped


def test_a_flip_alone_mirrors_the_input():
    affine, flipped = Augment((1, 1), 0, 0, flip=1).sample(np.random.default_rng(0), (100, 50), (64, 96))
    mirror = np.array([[-1, 0, 95], [0, 1, 0], [0, 0, 1.0]])
    np.testing.assert_allclose(homogeneous(affine), mirror @ homogeneous(fit_affine((100, 50), (64, 96))), atol=1e-9)
    assert flipped


@pytest.mark.parametrize("keep", [True, False])
def test_a_sample_is_its_parts_composed(keep):
    augment = Augment(scale=(0.5, 2.0), rotation=30, translation=0.2, flip=0.5)
    image_size, input_size = (120, 200), (96, 64)
    for seed in range(20):
        affine, flipped = augment.sample(np.random.default_rng(seed), image_size, input_size, keep)
        unit = np.random.default_rng(seed).random(5)
        angle, zoom = np.radians(30 * (2 * unit[0] - 1)), 0.5 + 1.5 * unit[1]
        turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        fit = np.diag(fit_affine(image_size, input_size, keep)[:, :2].diagonal())
        linear = fit @ turn @ np.diag([-1 if flipped else 1, 1])
        np.testing.assert_allclose(affine[:, :2], linear, atol=1e-9)
        shift = apply_affine(affine, np.array([99.5, 59.5])) - [31.5, 47.5]
        np.testing.assert_allclose(shift, 0.2 * (2 * unit[2:4] - 1) * [64, 96], atol=1e-9)


@pytest.mark.parametrize("window, side", [("short", 120), ("long", 200)])
def test_a_window_moves_along_the_picture_and_turns_about_its_middle(window, side):
    """As HigherHRNet cuts its samples: where the window's corners and middle lie on the picture."""
    augment = Augment(scale=(0.75, 1.5), rotation=30, translation=0.2, flip=0.5, window=window)
    for seed in range(20):
        affine, flipped = augment.sample(np.random.default_rng(seed), (120, 200), (64, 64))
        turn, size, right, down, _ = np.random.default_rng(seed).random(5)
        size, angle = side * (0.75 + 0.75 * size), np.radians(30 * (2 * turn - 1))
        moved = 0.4 * size * (np.array([right, down]) - 0.5) * [-1 if flipped else 1, 1]
        mirror = np.diag([-1 if flipped else 1, 1])
        unturned = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        corners = np.array([[0, 0], [-0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]])
        expected = [99.5, 59.5] - moved + size * corners @ (mirror @ unturned).T
        np.testing.assert_allclose(apply_affine(affine, expected), 31.5 + 64 * corners, atol=1e-9)


def test_the_short_window_of_size_one_is_the_largest_in_the_picture():
    still = Augment((1, 1), 0, 0, 0, window="short")
    corners = np.array([[-0.5, -0.5], [639.5, 479.5]])
    for input_size, expected in (
        ((64, 64), [[80 - 0.5, -0.5], [559.5, 479.5]]),
        ((64, 256), [[-0.5, 159.5], [639.5, 319.5]]),
    ):
        affine, _ = still.sample(np.random.default_rng(0), (480, 640), input_size)
        back = apply_affine(invert_affine(affine), np.array([[-0.5, -0.5], [input_size[1] - 0.5, input_size[0] - 0.5]]))
        np.testing.assert_allclose(back, expected, atol=1e-9)
    long, _ = Augment((1, 1), 0, 0, 0, window="long").sample(np.random.default_rng(0), (480, 640), (64, 64))
    np.testing.assert_allclose(apply_affine(long, corners), [[-0.5, 7.5], [63.5, 55.5]], atol=1e-9)


def test_cells_in_the_picture():
    inside = in_picture(fit_affine((48, 64), (64, 64)), (48, 64), (16, 16), 4)
    assert inside[2:14].all() and not inside[:2].any() and not inside[14:].any()
    white = np.full((48, 64, 3), 255, np.uint8)
    for seed in range(10):
        affine, _ = Augment((0.5, 1.5), 40, 0.4, 0.5).sample(np.random.default_rng(seed), (48, 64), (64, 64))
        inside = in_picture(affine, (48, 64), (64, 64), 1)
        values = warp(white, affine, (64, 64))[..., 0]
        assert 0 < inside.sum() < inside.size
        assert (values[inside] > 80).all() and (values[~inside] < 175).all()  # along the border half and half


def test_ranges_are_reached_and_kept():
    rng, augment = np.random.default_rng(1), Augment()
    drawn = [augment.sample(rng, (100, 100), (100, 100)) for _ in range(800)]
    zooms = [np.sqrt(abs(np.linalg.det(affine[:, :2]))) for affine, _ in drawn]
    angles = [np.degrees(np.arctan2(affine[1, 0], abs(affine[0, 0]))) for affine, _ in drawn]
    assert 0.5 <= min(zooms) < 0.52 and 1.98 < max(zooms) <= 2.0
    assert max(np.abs(angles)) <= 11.5 and max(np.abs(angles)) > 11
    assert 0.45 < np.mean([flipped for _, flipped in drawn]) < 0.55


@pytest.mark.parametrize("bad", [{"scale": (0, 1)}, {"scale": (2, 1)}, {"flip": 1.5}, {"window": "square"}])
def test_senseless_ranges_are_refused(bad):
    with pytest.raises(ValueError, match="Augment"):
        Augment(**bad)


def test_picture_and_points_move_together():
    point = np.array([130.0, 90.0])
    augment = Augment(scale=(0.8, 1.6), rotation=40, translation=0.1, flip=0.5)
    for seed in range(10):
        affine, _ = augment.sample(np.random.default_rng(seed), (240, 320), (224, 224))
        expected = apply_affine(affine, point)
        if (np.abs(expected - 111.5) < 80).all():
            np.testing.assert_allclose(centre_of(warp(blobs([point]), affine, (224, 224))), expected, atol=0.1)


def test_around_a_picture_is_the_background():
    white, small = np.full((40, 60, 3), 255, np.uint8), fit_affine((40, 60), (64, 64)) * 0.5
    for background in (0, 128):
        values = warp(white, small, (64, 64), background)
        assert (
            (values[40:] == background).all()
            and (values[:, 40:] == background).all()
            and (values[10:20, 5:25] == 255).all()
        )


@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_reduced_decode_lands_on_the_same_pixels(tmp_path, reduction):
    path = tmp_path / "a.jpg"
    point = np.array([113.0, 157.0])
    cv2.imwrite(str(path), blobs([point], (241, 319), 12.0), [cv2.IMWRITE_JPEG_QUALITY, 98])
    affine = fit_affine((241, 319), (96, 128))
    image, done = read_reduced(path, reduction)
    assert done == reduction and image.shape == (-(-241 // reduction), -(-319 // reduction), 3)
    found = centre_of(warp(image, reduced_affine(affine, reduction), (96, 128)))
    np.testing.assert_allclose(found, apply_affine(affine, point), atol=0.1)


def test_reduction_never_blurs():
    for scale, expected in ((2.0, 1), (0.51, 1), (0.5, 2), (0.26, 2), (0.25, 4), (0.125, 8), (0.01, 8)):
        assert reduction_for(np.array([[scale, 0, 5], [0, scale, 5]])) == expected
    assert reduction_for(np.array([[0.1, 0, 0], [0, 0.9, 0]])) == 1  # the axis that is shrunk least decides
    for linear in np.random.default_rng(0).normal(0, 0.2, (200, 2, 2)):
        largest = np.linalg.svd(linear, compute_uv=False)[0]
        expected = max([r for r in (1, 2, 4, 8) if r * largest <= 1], default=1)
        assert reduction_for(np.column_stack([linear, [3, 4]])) == expected


def test_reads_rgb_in_stored_orientation(tmp_path):
    image = np.zeros((20, 30, 3), np.uint8)
    image[:, :, 2] = 255  # red for OpenCV
    cv2.imwrite(str(tmp_path / "a.png"), image)
    assert read_reduced(tmp_path / "a.png", 2)[0].shape == (20, 30, 3)  # PNG: whole
    assert read_image(tmp_path / "a.png")[5, 5].tolist() == [255, 0, 0]
    jpeg = cv2.imencode(".jpg", image)[1].tobytes()
    turned = bytes.fromhex("ffe1002245786966000049492a0008000000010012010300010000000600000000000000")
    (tmp_path / "exif.jpg").write_bytes(jpeg[:2] + turned + jpeg[2:])
    assert cv2.imread(str(tmp_path / "exif.jpg")).shape == (30, 20, 3)
    assert read_image(tmp_path / "exif.jpg").shape == (20, 30, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_cut_off_and_wrong_files_are_one_clear_error(tmp_path, suffix):
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    whole = cv2.imencode(suffix, image)[1].tobytes()
    path = tmp_path / f"a{suffix}"
    for length in (0, 20, len(whole) // 2, len(whole) - 14):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=f"a{suffix}: the image is cut off after {length} bytes"):
            read_image(path)
    path.write_bytes(whole + b"appended by a camera" * 3)
    assert read_image(path).shape == (64, 64, 3)
    path.write_text("this is no picture")
    with pytest.raises(ValueError, match="not a readable image"):
        read_image(path)
    with pytest.raises(FileNotFoundError, match="missing.jpg: image not found"):
        read_image(tmp_path / "missing.jpg")


@pytest.fixture
def batch():
    images = torch.randint(60, 180, (3, 3, 16, 20), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return images.contiguous(memory_format=torch.channels_last)


def factors(seed, value, n=3):
    return 1 + value * (torch.rand(n, 4, generator=torch.Generator().manual_seed(seed)) * 2 - 1)


def test_no_jitter_changes_nothing(batch):
    out = ColorJitter(0, 0, 0, 0)(batch)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, batch.float(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("position, name", list(enumerate(["brightness", "contrast", "saturation"])))
def test_each_factor_agrees_with_torchvision(batch, position, name):
    values = dict.fromkeys(["brightness", "contrast", "saturation", "hue"], 0.0) | {name: 0.3}
    out = ColorJitter(**values)(batch, torch.Generator().manual_seed(3))
    by_torchvision = getattr(tv, f"adjust_{name}")
    for image, got, factor in zip(batch, out, factors(3, 0.3)[:, position]):
        expected = by_torchvision(image.float() / 255, float(factor)) * 255
        torch.testing.assert_close(got, expected, atol=0.05, rtol=0)


def test_factors_compose_as_torchvisions_chain(batch):
    out = ColorJitter(0.3, 0.3, 0.3, 0)(batch, torch.Generator().manual_seed(3))
    for image, got, (brightness, contrast, saturation, _) in zip(batch, out, factors(3, 0.3).tolist()):
        expected = tv.adjust_brightness(tv.adjust_saturation(image.float() / 255, saturation), brightness)
        torch.testing.assert_close(got, tv.adjust_contrast(expected, contrast) * 255, atol=0.05, rtol=0)


def test_hue_turns_around_grey_in_torchvisions_direction(batch):
    out = ColorJitter(0, 0, 0, 0.05)(batch, torch.Generator().manual_seed(3))
    for image, got, factor in zip(batch.float(), out, factors(3, 0.05)[:, 3]):
        ours, theirs = got - image, tv.adjust_hue(image / 255, float(factor - 1)) * 255 - image
        assert torch.nn.functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.7
    torch.testing.assert_close(out.mean(dim=1), batch.float().mean(dim=1))
    # a third of a turn moves red to green, green to blue, blue to red
    unit = float(factors(5, 1.0, 1)[0, 3]) - 1
    third = ColorJitter(0, 0, 0, 1 / (3 * unit))(batch[:1], torch.Generator().manual_seed(5))
    torch.testing.assert_close(third, batch[:1, [2, 0, 1]].float(), atol=0.01, rtol=0)


def test_jitter_of_any_size_and_memory_format(batch):
    odd = batch[:, :, :15, :19]
    jitter = ColorJitter(0.3, 0.3, 0.3, 0.1)
    plain, channels_last = (jitter(x, torch.Generator().manual_seed(1)) for x in (odd.contiguous(), odd))
    torch.testing.assert_close(plain, channels_last)
    assert plain.is_contiguous(memory_format=torch.channels_last)


def test_grey_has_neither_saturation_nor_hue():
    grey = torch.full((2, 3, 4, 4), 90.0)
    torch.testing.assert_close(ColorJitter(0, 0, 0.9, 0.5)(grey), grey, atol=1e-3, rtol=0)


def test_jitter_is_per_picture_repeatable_clipped_and_safe_under_autocast(batch):
    same = batch[:1].repeat(3, 1, 1, 1)
    before = same.clone()
    jitter = ColorJitter(0.9, 0.9, 0.5, 0.1)
    out = jitter(same, torch.Generator().manual_seed(1))
    assert torch.equal(out, jitter(same, torch.Generator().manual_seed(1))) and torch.equal(same, before)
    assert not torch.allclose(out[0], out[1])
    assert out.min() >= 0 and out.max() <= 255
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(jitter(same, torch.Generator().manual_seed(1)), out)
