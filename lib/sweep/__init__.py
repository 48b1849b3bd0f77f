"""Sweeps: one notebook many times, with other parameters each time: `python -m lib sweep GRID.yaml`.

    notebook: 21                  # number or name of a notebook of the workbook, or a file's path from the repository
    profile: smoke                # workshop, if left out
    parameters: {epochs: 2}       # the same in every run
    cross:                        # every combination of these: 3 × 2 runs
      rate: [0.1, 0.01, 0.001]
      flip: [yes, no]
    runs:                         # single runs beside them
      - {rate: 0.5, epochs: 1}

Every run is a process of its own in a folder of its own, here or on a Dask cluster. The same command again does what is
missing, what failed, and what the notebook's cells have changed under; everything else is kept.
"""

import sys

# jsonschema stands behind every tool for notebooks and compiles the grammar of international web addresses if it finds it:
# a second in every process, of which a sweep starts many
sys.modules.setdefault("rfc3987_syntax", None)
