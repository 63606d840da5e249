"""Edit digits with an operator of your own: known are the sums of the rows, made by a matrix."""

from pathlib import Path

import torch

import fewstep
from fewstep import CT, EDM, MLP, FlowMap, Trainer, Training
from fewstep.data import to_float
from fewstep.editing import Matrix, edit
from fewstep.editing.operators import rotation

out = Path("runs/own-operator")
data = fewstep.load("digits")
f = FlowMap(MLP(data.shape, num_classes=data.num_classes), EDM(T=20.0, sigma_data=0.752))
f = Trainer(CT(f, K=300), data, Training(steps=300, lr=1e-3), out).run()

# One rotation for each row of 8 pixels: its first coordinate is proportional to the row's sum.
A = torch.block_diag(*[rotation(torch.ones(8))] * 8)
Omega = torch.arange(64) % 8 != 0  # 1 where something is to be generated

test = fewstep.load("digits", split="test")
y = to_float(test.images[:20])
x = edit(f, y, Matrix(A, data.shape, Omega), steps=8, labels=test.labels[:20])
print(f"largest error of a row's sum: {(x - y).sum(3).abs().max():.1e}")
fewstep.save_images(fewstep.to_uint8(torch.cat([y, x])), out / "rows.png", columns=20)
