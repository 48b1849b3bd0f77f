"""Ways of turning people into maps and maps into people, one file per method."""

from lib.codecs.codec import Codec
from lib.codecs.heatmap import HeatmapCodec
from lib.codecs.paf import PafCodec
from lib.codecs.parts import PartsCodec
from lib.codecs.tags import TagsCodec

__all__ = ["CODECS", "Codec", "HeatmapCodec", "PafCodec", "PartsCodec", "TagsCodec"]

CODECS: dict[str, type[Codec]] = {"PafCodec": PafCodec, "PartsCodec": PartsCodec, "TagsCodec": TagsCodec,
                                  "HeatmapCodec": HeatmapCodec}  # fmt: skip
