"""Two test processes share two cores: one torch thread each."""

import torch

torch.set_num_threads(1)
