"""Networks by the name that recipes and checkpoints use; one file per architecture.

A network is an `nn.Module(skeleton, **options)` with

- `forward(images (N, 3, H, W) float, RGB 0..255) → dict of maps`: mean, std and channel order are inside the graph;
- `loss(maps, targets) → dict of scalars`, one entry per term;
- `skeleton`, `options` (all constructor arguments but the skeleton: plain values), `stride` (pixels per map cell) and
  `input_multiple` (H and W must be multiples of it);
- `outputs`: state-dict prefix of each last layer → "keypoints" or "limbs", what its channels stand for. This is all that
  `lib.checkpoints` needs to carry a head over to another skeleton.
"""

from lib.models.lightweight_openpose import LightweightOpenPose
from lib.models.trt_pose import TrtPose

NETWORKS = {"TrtPose": TrtPose, "LightweightOpenPose": LightweightOpenPose}
