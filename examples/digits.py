"""Distil a diffusion model of the digits into a consistency model, and sample it in two steps."""

from pathlib import Path

import fewstep
from fewstep import CD, EDM, MLP, FlowMap, Multistep, ScoreMatching, Trainer, Training

out = Path("runs/example")
data = fewstep.load("digits")
p = EDM(T=20.0, sigma_data=0.752)
how = Training(steps=600, optimizer="adam", lr=2e-3, decay="cosine", clip=1.0, ema=(20_000.0,))


def new_map() -> FlowMap:
    return FlowMap(MLP(data.shape, num_classes=data.num_classes), p)


score_model = ScoreMatching(new_map(), K=how.steps, P_mean=-0.6, P_std=1.4)
teacher = Trainer(score_model, data, how, out / "edm").run()

f = new_map()
f.load_state_dict(teacher.state_dict())
cd = CD(f, K=how.steps, teacher=teacher, N=18, solver="heun", distance="l2", weighting="edm")
f = Trainer(cd, data, how, out / "cd").run()

x = fewstep.sample(f, n=64, sampler=Multistep(taus=(0.8,)), seed=0)
fewstep.save_images(fewstep.to_uint8(x), out / "two-steps.png")
print(f"two network evaluations an image: {out / 'two-steps.png'}")
