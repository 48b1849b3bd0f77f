"""Options of codecs: every one is described where it is refused, and a misspelt one is guessed."""

from dataclasses import fields

import pytest

from lib.codecs import CODECS, HeatmapCodec, PafCodec, PartsCodec, TagsCodec
from lib.codecs.codec import _description, nearest
from lib.predict.predictor import codec_from_metadata
from lib.skeleton import COCO17


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_every_option_is_described(codec):
    assert "see its description" not in [_description(codec, field.name) for field in fields(codec)]


@pytest.mark.parametrize("codec, options, said", [
    (HeatmapCodec, {"blur": 4}, r"HeatmapCodec cannot work with blur=4: side of the kernel .*, cells, odd; .* to σ = 3\.$"),
    (HeatmapCodec, {"refine": "half"}, "refine must be one of none, quarter, dark, udp, got 'half'"),
    (PafCodec, {"peak_window": 4}, "PafCodec cannot work with peak_window=4: odd size"),
    (PafCodec, {"score": "sum"}, "score must be one of confidence, count, balanced, openpose, got 'sum'"),
    (PartsCodec, {"nms_radius": -1}, "PartsCodec cannot work with nms_radius=-1: of the disc, in cells"),
    (TagsCodec, {"tag_threshold": 0}, "TagsCodec cannot work with tag_threshold=0: a keypoint joins a person"),
])  # fmt: skip
def test_a_wrong_value_is_answered_by_what_the_option_means(codec, options, said):
    with pytest.raises(ValueError, match=said):
        codec(COCO17, **options)


def test_a_misspelt_option_names_the_nearest():
    about = {"codec": {"name": "PafCodec", "options": {}}, "skeleton": vars(COCO17)}
    with pytest.raises(ValueError, match="PafCodec has no option 'peak_treshold'; did you mean 'peak_threshold'\\?"):
        codec_from_metadata(about, {"peak_treshold": 0.2})
    assert nearest("zzz", ["one", "two"]) == "; known: one, two"
