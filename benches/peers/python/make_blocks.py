"""Writes a FLUX transformer of one double and one single block, FLUX.1-dev's widths, random weights in bf16."""

import os
import sys

import torch
from diffusers import FluxTransformer2DModel

folder = sys.argv[1]
torch.manual_seed(0)
model = FluxTransformer2DModel(num_layers=1, num_single_layers=1, guidance_embeds=True)
model.to(torch.bfloat16).save_pretrained(folder + ".tmp", max_shard_size="10GB")
os.rename(folder + ".tmp", folder)
