"""Data sets from the archives their makers publish: downloaded, checked, unpacked, laid out as data/README.md says.

Every command can be killed at any moment and started again; it goes on and ends in the same files. What the user brings
is only read.
"""

from lib.prepare.coco import prepare_coco
from lib.prepare.imagenet import prepare_imagenet
from lib.prepare.mpii import prepare_mpii

COMMANDS = {"coco": prepare_coco, "imagenet": prepare_imagenet, "mpii": prepare_mpii}
