"""A step as a CUDA graph: captured once, shown to compute what the walk does, then replayed by one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from helixctl.errors import fail

# Of the walk, on the stream that captures: by then libraries have chosen kernels and allocated what they keep.
_WARM_UP = 3


def is_replayed(able: Sequence[bool], *, wanted: bool | None) -> bool:
    """Whether all ranks replay their steps from CUDA graphs.

    Args:
        able: for every rank, whether its steps need nothing of the host (``BoundProgram.on_device``).
        wanted: what the user says; None is nothing: then a single rank does, if it can. Several ranks do where it is
            asked for.

    Raises:
        HelixError: HX514, it is asked for, and a rank is not able to.
    """
    if wanted and not all(able):
        message = f"a step of rank {able.index(False)} cannot be a CUDA graph: its experts need the host"
        hint = "leave --cuda-graph out; experts need --dtype bfloat16 and an H100 or newer for it"
        raise fail("HX514", message, hint)
    return all(able) and (len(able) == 1 if wanted is None else wanted)


def captured(step: Callable[[], object], outputs: Sequence[torch.Tensor], what: str) -> Callable[[], None]:
    """Capture a step, and replay it once to see that it writes the same bits.

    Every kernel's launch costs the host some microseconds, which short kernels do not hide; a graph launches all of a
    step at once. Its temporary memory is its own, and stays allocated.

    Args:
        step: walks programs on the current device that need nothing of the host (``BoundProgram.on_device``).
        outputs: what it writes.
        what: names the rank in messages.

    Returns:
        The replay of the step.

    Raises:
        HelixError: HX514, the step cannot be captured, or the replay writes other bits than the walk.
    """
    main, side = torch.cuda.current_stream(), torch.cuda.Stream()
    side.wait_stream(main)
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP):
            step()
    main.wait_stream(side)
    walked = [output.clone() for output in outputs]
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            step()
    except RuntimeError as error:
        message = f"{what} cannot capture a step in a CUDA graph: {str(error).splitlines()[0]}"
        raise fail("HX514", message, "run it with --no-cuda-graph") from error
    for output in outputs:
        output.fill_(float("nan"))
    graph.replay()
    # Bits, not numbers: a step may have made NaN, which equals nothing.
    if not all(torch.equal(_bits(a), _bits(b)) for a, b in zip(outputs, walked, strict=True)):
        message = f"{what}: the replay of a CUDA graph wrote other numbers than the walk that it was captured from"
        raise fail("HX514", message, "run it with --no-cuda-graph, and report it with the environment of a report")
    return graph.replay


def _bits(numbers: torch.Tensor) -> torch.Tensor:
    return numbers.contiguous().view(torch.uint8)
