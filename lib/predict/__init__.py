"""Find people: the room where every model is used, on pictures, videos and cameras."""

from lib.predict.predictor import Predictor, codec_from_metadata, predict

__all__ = ["Predictor", "codec_from_metadata", "predict"]
