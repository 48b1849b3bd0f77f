"""Find people: the room where every model is used, on pictures, videos and cameras."""

from lib.predict.command import main, predict
from lib.predict.painting import Painter
from lib.predict.predictor import Predictor, codec_from_metadata
from lib.predict.stages import STAGES, StageTimes, timed
from lib.predict.stream import Seen, watch

__all__ = ["STAGES", "Painter", "Predictor", "Seen", "StageTimes", "codec_from_metadata", "main", "predict", "timed", "watch"]
