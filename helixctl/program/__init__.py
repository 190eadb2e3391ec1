"""What each rank runs: from a dag to a flat list of actions, and to an offset in memory for everything they touch."""

from helixctl.program.actions import Action, Compute, Copy, Exchange, Program, Wait, Weights
from helixctl.program.alike import Programs, programs_of
from helixctl.program.arena import Arena, Block, arena_of
from helixctl.program.constants import CausalMask, Constant, KeyPositions, QueryScales, RotaryTable
from helixctl.program.merged import Kernel, kernels, merged
from helixctl.program.rank import program_of
from helixctl.program.view import Buffer, View

__all__ = [
    "Action",
    "Arena",
    "Block",
    "Buffer",
    "CausalMask",
    "Compute",
    "Constant",
    "Copy",
    "Exchange",
    "Kernel",
    "KeyPositions",
    "Program",
    "Programs",
    "QueryScales",
    "RotaryTable",
    "View",
    "Wait",
    "Weights",
    "arena_of",
    "kernels",
    "merged",
    "program_of",
    "programs_of",
]
