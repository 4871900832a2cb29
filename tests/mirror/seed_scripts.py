# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Scripts as a team has them by the hundred, unchanged but for the line that switches dual logging on."""

OURS, THEIRS = "neptune_exporter.dual_logging", "mlop.compat.neptune"
BASIC = """
import {switch}
from neptune_scale import Run

run = Run(experiment_name="my-training-run")
run.log_configs({{"lr": 0.001, "batch_size": 32}})

for epoch in range(100):
    run.log_metrics({{"loss": 0.5, "acc": 0.9}}, step=epoch)

run.close()
"""
IMAGES = """
import {switch}
from neptune_scale import Run
from neptune_scale.types import File

run = Run(experiment_name="vision-model")

# Log images (auto-converted to mlop.Image)
image_file = File(source="sample.png", mime_type="image/png")
run.assign_files({{"samples/image1": image_file}})

run.close()
"""
HISTOGRAMS = """
import {switch}
import numpy as np
from neptune_scale import Run
from neptune_scale.types import Histogram

run = Run(experiment_name="histogram-logging")

# Log layer activations
activations = np.random.randn(1000)
counts, bin_edges = np.histogram(activations, bins=50)
hist = Histogram(bin_edges=bin_edges, counts=counts)

run.log_histograms({{"layer1/activations": hist}}, step=0)
run.close()
"""
CONTEXT = """
import {switch}
from neptune_scale import Run

with Run(experiment_name="context-test") as run:
    run.log_metrics({{"loss": 0.3}}, step=0)
    # Both Neptune and mlop runs closed automatically
"""
