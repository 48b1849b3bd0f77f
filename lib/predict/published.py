"""Predictors that find people exactly as the published evaluations of the methods do, to compare with published figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.checkpoints import Model, load_model
from lib.codecs import Codec
from lib.codecs.heatmap import HeatmapCodec
from lib.codecs.paf import PafCodec, lightweight_openpose_options
from lib.codecs.tags import TagsCodec
from lib.codecs.tags_decode import PUBLISHED_TAGS, THAWRO_TAGS
from lib.detect import Detector
from lib.predict.predictor import Predictor, codec_from_metadata
from lib.runtime import PUBLIC_SUFFIXES, open_network, public_model


@dataclass(frozen=True)
class Rules:
    """How one published evaluation goes.

    Attributes:
        of: whose it is.
        fit, maps_at: as for `Predictor`.
        options: decode options.
        input_size: the only one, or None for any.
        third: what each keypoint's third number in the results is, see `people_to_results`.
        half_pixel: 0.5 is added to x and y in the results. (HigherHRNet's decoder does that itself.)
        several_scales: whether it can average several.
    """

    of: str
    fit: str
    maps_at: str
    options: dict
    input_size: tuple[int, int] | None = None
    third: str = "score"
    half_pixel: bool = False
    several_scales: bool = True


def published_rules(codec: Codec, protocol: str = "all", old_decoder: bool = False) -> Rules:
    """The published evaluation for a model with this codec.

    Of heatmaps and tags there are two: HigherHRNet's own scores all images, thawro/pytorch-human-pose only those with people,
    with lower thresholds and one scale. Its figures and HigherHRNet's are not comparable.

    Args:
        codec: of the model.
        protocol: "all" images, or only those "with_people".
        old_decoder: Lightweight OpenPose's decoder before December 2020, with which its published AP of 40 was measured.

    Raises:
        ValueError: there is none for this codec or protocol, or the skeleton lacks the limbs of the method.
    """
    if isinstance(codec, PafCodec):
        if protocol != "all":
            raise ValueError(f"the published rules of part affinity fields, Lightweight OpenPose's, score all images, also those "
                             f"without people; leave out protocol={protocol!r}")  # fmt: skip
        options = {
            **lightweight_openpose_options(codec.skeleton, old_decoder),
            "score": "openpose",
            "upsample": 1,
        }
        return Rules("Lightweight OpenPose", "height", "image", options, (368, 368), "found", True)
    if old_decoder:
        raise ValueError("old_decoder is Lightweight OpenPose's; leave it out for any other model")
    if isinstance(codec, HeatmapCodec):
        if protocol != "all":
            raise ValueError(f"the published rules of top-down models score all images: leave out protocol={protocol!r}")
        # where cells lie and how peaks are read stays as the file has it: that is what differs between the published ones
        return Rules("SimpleBaseline", "model", "input", {"score_threshold": 0.2}, several_scales=False)
    if not isinstance(codec, TagsCodec):
        raise ValueError("there are no published rules for DeeperCut's models: their authors gave people no score and published no "
                         "AP on COCO. Their demo is rules='ours' with fit='native', and min_parts 1 and max_detections null of "
                         "the codec; on single people see the measure pckh")  # fmt: skip
    if protocol == "all":
        return Rules("HigherHRNet", "short", "pixels", PUBLISHED_TAGS)
    # its tags are enlarged in one step, which the decoder does, and it has one scale
    return Rules("pytorch-human-pose", "short", "input", THAWRO_TAGS, third="found", several_scales=False)


def published_predictor(model: Model | str | Path, device: str = "cpu", *, scales: Sequence[float] = (1.0,),
                        flip_test: bool = False, old_decoder: bool = False, protocol: str = "all",
                        input_size: tuple[int, int] | None = None,
                        detector: Detector | str | Path | None = None) -> Predictor:  # fmt: skip
    """A predictor that finds people as the published evaluation of its method does.

    Lightweight OpenPose's (Osokin 2018, arXiv:1811.12004): pictures are 368 high and at least as wide, with grey beside them,
    their maps are brought to the pictures' own resolution and decoded there. HigherHRNet's (Cheng et al. 2020,
    arXiv:1908.10357): the shorter side gets the input's size, maps are brought to the input's resolution. Both are slow, and
    only good for comparing with published figures. SimpleBaseline's (Xiao et al. 2018, arXiv:1804.06208), and of all top-down
    models after it, are nearly ours; a public file knows its cells, `load_topdown` its decoder.

    Args:
        model, device, flip_test, detector: as for `Predictor`; Lightweight OpenPose's published figures are without flip test,
            HigherHRNet's and SimpleBaseline's with it. Those of top-down models depend on the detector.
        scales: the published multi-scale evaluations take 0.5, 1, 1.5, 2 (Lightweight OpenPose) and 0.5, 1, 2 (HigherHRNet).
        old_decoder, protocol: see `published_rules`.
        input_size: another one than the model's, not for Lightweight OpenPose; 512 and 640 are published for HigherHRNet.

    Raises:
        ValueError: there are no such rules for this model.
    """
    source = None if isinstance(model, Model) else Path(model)
    if source is not None and source.suffix in (".safetensors", *PUBLIC_SUFFIXES):
        model = load_model(source) if source.suffix == ".safetensors" else public_model(source)
    codec = model.codec if isinstance(model, Model) else codec_from_metadata(open_network(model, device).metadata)
    rules = published_rules(codec, protocol, old_decoder)
    _check_scales(rules, scales)
    if None not in (input_size, rules.input_size) and tuple(input_size) != rules.input_size:
        raise ValueError(f"{rules.of}'s published rules are for the input size {rules.input_size[0]}×{rules.input_size[1]} only; "
                         "leave out input_size")  # fmt: skip
    if rules.input_size and isinstance(model, Model) and any(side % model.network.input_multiple for side in rules.input_size):
        raise ValueError(f"{rules.of}'s published rules are for the input size {rules.input_size[0]}×{rules.input_size[1]} only, "
                         f"and a {type(model.network).__name__} takes multiples of {model.network.input_multiple}: measure it "
                         "by rules='ours'")  # fmt: skip
    predictor = Predictor(model, device, flip_test=flip_test, input_size=rules.input_size or input_size, scales=scales,
                          fit=rules.fit, maps_at=rules.maps_at, detector=detector)  # fmt: skip
    predictor.codec = dataclasses.replace(predictor.codec, **rules.options)
    predictor.source = source
    return predictor


def check_published(predictor: Predictor, protocol: str) -> Rules:
    """The published rules that a predictor follows.

    Raises:
        ValueError: it does not follow any; the sentence says what differs.
    """
    rules = published_rules(predictor.codec, protocol)
    _check_scales(rules, predictor.scales)
    size = tuple(predictor.input_size)
    wrong = [f"input_size {size}"] * (rules.input_size not in (None, size))
    wrong += [f"fit {predictor.fit_to!r}"] * (predictor.fit_to != rules.fit)
    wrong += [f"maps_at {predictor.maps_at!r}"] * (predictor.maps_at != rules.maps_at)
    decoders = [rules.options]
    if isinstance(predictor.codec, PafCodec):
        decoders.append(published_rules(predictor.codec, protocol, old_decoder=True).options)
    wrong += ["another decoder"] * (not any(_has(predictor.codec, options) for options in decoders))
    if wrong:
        raise ValueError(f"this predictor does not follow {rules.of}'s published rules ({', '.join(wrong)}): make it with "
                         f"lib.evaluate.published_predictor(model, protocol={protocol!r})")  # fmt: skip
    return rules


def has_old_decoder(codec: Codec) -> bool:
    """Whether people are found by Lightweight OpenPose's decoder before December 2020."""
    return isinstance(codec, PafCodec) and _has(codec, published_rules(codec, old_decoder=True).options)


def _has(codec: Codec, options: dict) -> bool:
    return dataclasses.replace(codec, **options) == codec


def _check_scales(rules: Rules, scales: Sequence[float]) -> None:
    if not rules.several_scales and tuple(scales) != (1.0,):
        own = "" if rules.of == "SimpleBaseline" else ", or score all images, for HigherHRNet's own rules"
        raise ValueError(f"{rules.of}'s published rules have one scale, not {' '.join(f'{s:g}' for s in scales)}; leave out "
                         f"scales{own}")  # fmt: skip
