"""The plain arm: the digits CNN in a bare PyTorch loop, nothing of Assay. Prints the seconds of each epoch as JSON.

`python benchmarks/bare_digits.py IMAGES.npz THREADS EPOCHS`
"""

from __future__ import annotations

import json
import math
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

BATCH, RATE, DECAY, WARMUP = 64, 3e-3, 0.05, 0.05


def block(into: int, out: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(into, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True))


def main() -> None:
    path, threads, epochs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(threads)
    assert torch.get_num_threads() == threads
    data = np.load(path)
    images, labels = torch.from_numpy(data["images"]), torch.from_numpy(data["labels"])
    mean, std = images.float().mean(), images.float().std()
    model = nn.Sequential(
        block(1, 32), block(32, 32), nn.MaxPool2d(2), block(32, 64), block(64, 64),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Dropout(0.1), nn.Linear(64 * 16, 10),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    steps = len(images) // BATCH
    total, warmup = epochs * steps, WARMUP * epochs * steps

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    seconds = []
    for _ in range(epochs):
        model.train()
        order = torch.randperm(len(images))
        started = time.perf_counter()
        for step in range(steps):
            rows = order[step * BATCH : (step + 1) * BATCH]
            loss = F.cross_entropy(model((images[rows].float() - mean) / std), labels[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
        seconds.append(time.perf_counter() - started)
    print(json.dumps({"threads": torch.get_num_threads(), "epoch_seconds": seconds}))


if __name__ == "__main__":
    main()
