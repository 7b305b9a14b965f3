"""The names of the files and folders that a study writes into its workdir."""

# In the workdir.
STUDY = "study.json"  # What the report knows about the study and its runs.
TRIALS = "tuning"  # The trials of a tuned study, a folder for each run.
CROPS = "crops.png"  # Training images as the models see them, at each training scale.
SHEET = "sheet.png"  # The same for each way in which runs prepare their images.
REPORT = "report"  # The report, without its suffix.
CLAIMS = "claims.json"  # The verdicts on the paper's claims.
LAUNCHES = "launches"  # All launches that share the runs lock it together.
COMPACT_RUNS = "runs.json"  # Where results are exported, in place of the runs' folders.
OF_STUDY = (
    STUDY,
    TRIALS,
    CROPS,
    SHEET,
    *(f"{REPORT}.{suffix}" for suffix in ("md", "html", "png")),
    CLAIMS,
    LAUNCHES,
    COMPACT_RUNS,
)

# In the folder of a run and seed, <workdir>/<run>/seed<k>.
CONFIG = "config.json"  # The experiment.
DATA = "data.json"  # The description of the data set.
METRICS = "metrics.jsonl"
DAMAGED_METRICS = "metrics.damaged.jsonl"  # A copy from before damaged lines were left out.
STARTS = "starts.jsonl"  # A line for each launch.
LAYERS = "layers.jsonl"  # Statistics of the layers, a line for each step that is measured.
CHECKPOINTS = "checkpoints"
CHECKSUMS = "digests.json"  # Those of the checkpoints.
DAMAGED_CHECKPOINTS = "damaged_checkpoints"  # Where those that cannot be read are moved to.
ERASED_CHECKPOINTS = "erased_checkpoints"  # Where they are while they are deleted.
EVALUATIONS = "evaluations"  # A file <protocol>.json for each evaluation of the finished run.
TENSORBOARD = "tensorboard"
PROFILE = "profile"  # A trace of some steps.
LOCK = "lock"  # Held by the process that writes the run.
CLAIM = "claim"  # Held by the launch that trains the run, in the folder of the group's first seed.
