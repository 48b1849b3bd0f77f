"""What `lib.sweep.one` does to a folder, without a kernel and in a moment: `python one_quick.py FOLDER`.

The parameter `fail` says what goes wrong: "raise" a cell, "kill" the process in its first attempt, "exit" it without a word,
"wait" until whoever started it is gone.
"""

import hashlib
import json
import os
import signal
import sys
from pathlib import Path

folder = Path(sys.argv[1])
job = json.loads((folder / "job.json").read_text())
values = {"rate": 0.1, "seed": 0, "fail": ""} | job["overrides"]
attempts = folder / "attempts"
attempts.write_text("x" + (attempts.read_text() if attempts.exists() else ""))
if values["fail"] == "kill" and attempts.read_text() == "x":
    os.kill(os.getpid(), signal.SIGKILL)
if values["fail"] == "exit":
    sys.exit("disk full")
if values["fail"] == "wait":
    sys.stdin.read()
    sys.exit(1)
cells = json.loads(Path(job["notebook"]).read_text())["cells"]
text = "\0".join(f"{cell['cell_type']}\0{''.join(cell['source'])}" for cell in cells)
record = {"heading": "Quick", "sha256": hashlib.sha256(text.encode()).hexdigest(), "overrides": job["overrides"], "needs": [],
          "status": "ok", "seconds": 0.1, "parameters": job["overrides"]}  # fmt: skip
record["results"] = {"AP": values["rate"] * 2 + values["seed"], "threads": os.environ["OMP_NUM_THREADS"]}
if values["fail"] == "raise":
    record |= {"status": "failed", "results": {}, "error": {"name": "ValueError", "message": "no <luck>", "cell": 2}}
(folder / "run.json").write_text(json.dumps(record))
