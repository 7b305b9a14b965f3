"""Trains the study beside this file with three seeds, and prints its report."""

import sys
from pathlib import Path

from cnn_jax import study

mine = study.load(str(Path(__file__).with_name("my_study.py")), "laptop", {})
mine = study.configure(mine, ["schedule.base=0.05"])
report = study.run(mine, workdir=sys.argv[1], seeds=3)
print(report.text)
