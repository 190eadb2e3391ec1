"""The executor: walks a dag on CPU ranks or GPUs through torch.distributed. It never plans."""
