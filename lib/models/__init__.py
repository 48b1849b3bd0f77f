"""Networks by the name that recipes and checkpoints use; one file per architecture.

A network is an `nn.Module(skeleton, **options)` with

- `forward(images (N, 3, H, W) float, RGB 0..255) → dict of maps`: mean, std and channel order are inside the graph;
- `loss(maps, targets) → dict of scalars`, one entry per term;
- `skeleton`, `options` (all constructor arguments but the skeleton: plain values), `stride` (pixels per map cell) and
  `input_multiple` (H and W must be multiples of it);
- `outputs`: state-dict prefix of each last layer → "keypoints", "keypoints+background", "limbs" or "pairs" (of two different
  keypoints, as `itertools.permutations` has them), what its channels stand for. This is all that `lib.weights` needs to carry
  a head over to another skeleton; a network that reads maps back in also says where, with `inputs`, one with stages of which
  there may be more or fewer, or none, names them with `repeated`, and one with options that decide what its weights mean,
  though no tensor's shape shows it, with `inseparable`.

In training mode `forward` may return maps of further stages, as `heatmaps_0` and so on, each with its loss. A network whose
maps have several resolutions has `strides`, pixels per cell of each map by name; `stride` is then the coarsest.

A classifier is an `nn.Module(classes, **options)` with the same `forward`, `loss`, `options` and `input_multiple`; its only
map is "logits" (N, C).
"""

from lib.models.deepercut import DeeperCut
from lib.models.higherhrnet import HigherHRNet
from lib.models.hrnet import HRNetClassifier
from lib.models.lightweight_openpose import LightweightOpenPose
from lib.models.topdown import TopDown
from lib.models.trt_pose import TrtPose

NETWORKS = {"TrtPose": TrtPose, "LightweightOpenPose": LightweightOpenPose, "HigherHRNet": HigherHRNet, "DeeperCut": DeeperCut,
            "TopDown": TopDown}  # fmt: skip
CLASSIFIERS = {"HRNetClassifier": HRNetClassifier}
