"""What is published of collectives between hosts: the range in which a prediction of 2 x 8 GPUs lies.

Inside a host collectives were measured (spec/rates.py). Between hosts nobody has published a table for 16 H100 with a
NIC of 400 Gb/s each, so the defaults of the cost model are single figures, and others are as good. A range is made of
the best and of the worst that NCCL's own people and its users report of NICs and hosts without a fault.
"""

from __future__ import annotations

from typing import Final

from helixctl.cost.constants import BETWEEN_HOSTS, NIC_SHARE
from helixctl.records import record
from helixctl.spec import LinkSpec


@record
class End:
    """An end of the range.

    Attributes:
        nic_share: of a NIC's rate, what a collective reaches.
        all_reduce_s: start-up of an all-reduce of 16 ranks on two hosts; the other collectives' are changed alike.
        sources: where both are from.
    """

    nic_share: float
    all_reduce_s: float
    sources: str

    def sets(self, link: LinkSpec) -> tuple[str, str]:
        """``--set`` texts that make the cost model's link between hosts reach these figures.

        Args:
            link: what the cluster says of it, of which the cost model takes its default shares.
        """
        bandwidth = link.bandwidth * self.nic_share / NIC_SHARE.value
        latency = self.all_reduce_s / BETWEEN_HOSTS["all_reduce"].value
        return f"between_hosts.bandwidth={bandwidth / 1e9:.4g} GB/s", f"between_hosts.latency={latency * 1e6:.4g} us"


BEST: Final = End(
    0.96,
    47e-6,
    "48 of 50 GB/s a NIC of 400 Gb/s, 24 of 25 of 200 Gb/s (nccl-tests issues 290 and 160); "
    "an all-reduce of 4 B to 1 KiB on 2 x 8 H20 (nccl issue 1244)",
)
WORST: Final = End(
    0.8,
    113e-6,
    "20 of 25 GB/s a NIC, called not too bad (nccl-tests issue 160); "
    "a line through the all-reduces of 1 to 16 MiB on 2 x 8 H20 (nccl issue 1244)",
)
