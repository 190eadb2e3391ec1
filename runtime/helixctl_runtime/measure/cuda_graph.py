"""A step as a CUDA graph: it is captured once, compared with the walk, and then replayed by one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from helixctl.errors import fail

# Walks before the capture, on the stream that captures: in them libraries choose kernels and allocate their buffers.
_WARM_UP = 3


def uses_cuda_graph(able: Sequence[bool], *, wanted: bool | None) -> bool:
    """Whether all ranks replay their steps from CUDA graphs.

    Args:
        able: for every rank, whether its steps never wait for the host (``BoundProgram.on_device``).
        wanted: what the user asks for. None replays the steps of a single rank if it is able, and walks those of
            several ranks.

    Raises:
        HelixError: HX514, the user asks for it, and a rank is not able.
    """
    if wanted and not all(able):
        message = f"a step of rank {able.index(False)} cannot be a CUDA graph: its experts need the host"
        hint = "leave --cuda-graph out; experts need --dtype bfloat16 and an H100 or newer for it"
        raise fail("HX514", message, hint)
    return all(able) and (len(able) == 1 if wanted is None else wanted)


def capture_step(
    step: Callable[[], object],
    outputs: Sequence[torch.Tensor],
    what: str,
    unsettle: Callable[[], object] | None = None,
) -> Callable[[], None]:
    """Capture a step, and replay it once to check that it writes the same bits.

    The launch of a kernel costs the host some microseconds, which short kernels do not hide; a graph launches all
    kernels of a step at once. A graph has temporary memory of its own, which stays allocated.

    Args:
        step: walks programs on the current device that never wait for the host (``BoundProgram.on_device``).
        outputs: the tensors that it writes.
        what: the name of the rank in messages.
        unsettle: called before the replay; leaves what the step keeps for the next one as the walk has not left it, so
            that a replay which does not write it is found.

    Returns:
        A call that replays the step.

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
    if unsettle:
        unsettle()
    for output in outputs:
        output.fill_(float("nan") if output.is_floating_point() else -1)
    graph.replay()
    # Bits are compared, not numbers, because a step may have written NaN, which equals no number.
    if not all(torch.equal(_bits(a), _bits(b)) for a, b in zip(outputs, walked, strict=True)):
        message = f"{what}: the replay of a CUDA graph wrote other numbers than the walk that it was captured from"
        raise fail("HX514", message, "run it with --no-cuda-graph, and report it with the environment of a report")
    return graph.replay


def _bits(numbers: torch.Tensor) -> torch.Tensor:
    return numbers.contiguous().view(torch.uint8)
