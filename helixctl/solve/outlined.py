"""What is known of the tasks of outlines: their numbers, the cuts that they depend on, and their prices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from helixctl.dag import Tensor
from helixctl.lower import OutlinedTask
from helixctl.plan import Interval
from helixctl.plan.sharding import Cut, Shares


class Priced(NamedTuple):
    """A task with its price.

    Attributes:
        task: without its sizes.
        communicates: whether ranks do.
        seconds: of the task, with its devices and its links to itself; 0 where it brings the model's input to the
            ranks, which is done in the first layer alone.
        weight_nbytes: of the weights that it reads and no other task of its level.
        values_nbytes: of the values that no task before it reads or makes.
        made_nbytes: of those of them that it makes, for this step alone: not of a cache.
        output_nbytes: of what it makes of the model's output.
    """

    task: OutlinedTask
    communicates: bool
    seconds: float
    weight_nbytes: int
    values_nbytes: int
    made_nbytes: int
    output_nbytes: int


class Numbered(NamedTuple):
    """A task of an outline.

    Attributes:
        task: without its sizes.
        number: its own among all tasks that differ.
        cuts: the places of its cuts among those of the outline.
        communicates: whether ranks do.
    """

    task: OutlinedTask
    number: int
    cuts: tuple[int, ...]
    communicates: bool


class Computations(NamedTuple):
    """Computations that depend on the same cuts.

    Attributes:
        tasks: in the order in which they are lowered.
        number: their own among all that differ.
        cuts: the places of the cuts among those of the outline.
        feed_forward: whether the feed-forward network is among what they cut.
    """

    tasks: tuple[Numbered, ...]
    number: int
    cuts: tuple[int, ...]
    feed_forward: bool


class Computed(NamedTuple):
    """What computations take one after the other.

    Attributes:
        seconds: of all of them.
        weight_nbytes: of the weights that they read.
    """

    seconds: float
    weight_nbytes: int


class Communication(NamedTuple):
    """What the collectives of a layer take.

    Attributes:
        seconds: of all of them.
        exposed_s: what the layer takes longer than its computations, at least: the rest may be hidden behind these.
    """

    seconds: float
    exposed_s: float


class Lines(NamedTuple):
    """The tasks of an outline.

    Attributes:
        tasks: in the order in which they are lowered.
        collectives: those of them in which ranks communicate.
        computations: all others.
        hiding: of the computations those that a collective may be under way beside, in this order.
        tensors: that they are about, by name.
        cuts: every cut of these.
        of_batch: the places of the cuts of the batch.
    """

    tasks: tuple[Numbered, ...]
    collectives: tuple[Numbered, ...]
    computations: tuple[Computations, ...]
    hiding: tuple[Numbered, ...]
    tensors: Mapping[str, Tensor]
    cuts: tuple[Cut, ...]
    of_batch: tuple[int, ...]


class Sum(NamedTuple):
    """Computations of a rank.

    Attributes:
        number: equal where they are, for microbatches of equal sequences.
        of: what they are.
        joined: whether they are of all sequences of the replicas that share experts.
    """

    number: int
    of: Computations
    joined: bool


class RankTasks(NamedTuple):
    """The tasks of a rank, as far as they do not depend on the sequences of a microbatch.

    Attributes:
        shares: of all layouts that have them.
        lines: the tasks, whatever their shares.
        rank: whose work it is.
        spans: its share of every cut, of the batch as if the microbatch were empty.
        sums: its computations.
        feed_forward: those of them that cut the feed-forward network.
    """

    shares: Shares
    lines: Lines
    rank: int
    spans: list[Interval]
    sums: tuple[Sum, ...]
    feed_forward: tuple[Sum, ...]


class Form(NamedTuple):
    """The tasks of an outline whatever the sizes of its tensors.

    Attributes:
        tasks: each with the places of its cuts.
        cuts: every cut of a task.
    """

    tasks: tuple[tuple[OutlinedTask, tuple[int, ...]], ...]
    cuts: tuple[Cut, ...]
