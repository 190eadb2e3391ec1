"""Clusters by name: ``h100:2x8`` is two hosts of eight H100, as the yaml files in ``clusters/`` describe the GPU.

They are read where one is used; a plan holds its cluster whole, and so does not depend on them. What was measured of
each GPU is in spec/rates.py.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from helixctl.errors import Diagnostic, HelixError
from helixctl.records import record

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

MOST_HOSTS: Final = 4096  # as ClusterSpec has it
MOST_DEVICES: Final = 1024
HOW: Final = "h100:2x8 is 2 hosts of 8, h100:8 and 8xH100 are one host of 8"
DIFFERING: Final = "h100:2x8+l40s:1x4 is 2 hosts of 8 H100, then one of 4 L40S"

_IN_A_HOST: Final = 8  # GPUs of a baseboard: more on one host are meant only where the host is written too
_DIGITS: Final = "[0-9]{1,9}"
_NAMED: Final = re.compile(
    rf"(?P<gpu>[a-z]+[0-9]+[a-z]*)(?::(?:(?P<hosts>{_DIGITS})x)?(?P<devices>{_DIGITS}))?"
    rf"|(?P<count>{_DIGITS})x(?P<counted>[a-z]+[0-9]+[a-z]*)",
    re.IGNORECASE | re.ASCII,
)
# The same in other spellings, from which a name of ours is guessed: nvidia-h100-sxm5-80gb:2x8, H100x16, 2x8xH100.
_MAKER: Final = r"(?:nvidia|tesla|hgx|dgx|[^a-z0-9])*"
_FORM: Final = r"(?:[^a-z0-9]|sxm[0-9]?(?![0-9])|[0-9]+gb)*"
# GPUs that there are, and that are none of ours: no slips.
_OTHERS: Final = frozenset(
    {
        *("a2", "a10", "a10g", "a16", "a30", "a40", "a800", "h20", "h800", "gh200", "b100", "b300", "gb200", "gb300"),
        *("l2", "l4", "l20", "l40", "p40", "p100", "t4", "v100"),
        *("mi210", "mi250", "mi300", "mi300a", "mi350x"),
    }
)
_WORD: Final = re.compile(r"[A-Za-z0-9][\w.+:*-]*", re.ASCII)


@record
class NamedCluster:
    """A GPU that helixctl knows, and how many."""

    gpu: str
    hosts: int
    devices_per_host: int

    def __str__(self) -> str:
        """As it may be written on the command line."""
        return f"{self.gpu}:{self.hosts}x{self.devices_per_host}"

    @property
    def name(self) -> str:
        """That of the cluster, in which no colon may stand."""
        return f"{self.gpu}-{self.hosts}x{self.devices_per_host}"

    @property
    def text(self) -> str:
        """The yaml of the cluster, with the source of every figure."""
        text = _text_of(self.gpu)
        values = {"name": self.name, "hosts": self.hosts, "devices_per_host": self.devices_per_host}
        for key, value in values.items():
            text = re.sub(rf"(?m)^{key}: .*$", f"{key}: {value}", text, count=1)
        return text

    @property
    def source(self) -> str:
        """Where its figures come from."""
        found = re.search(r"(?m)^# Source: (.*)$", _text_of(self.gpu))
        return found[1] if found else ""


@record
class NamedClusters:
    """Hosts of several GPUs that helixctl knows, as ``h100:2x8+l40s:1x4`` names them."""

    parts: tuple[NamedCluster, ...]

    def __str__(self) -> str:
        """As it may be written on the command line."""
        return "+".join(map(str, self.parts))

    @property
    def name(self) -> str:
        """That of the cluster."""
        return "+".join(part.name for part in self.parts)

    @property
    def text(self) -> str:
        """The yaml of the cluster, whose devices are named: their figures are those of each GPU's own file."""
        lines = [f"name: {self.name}", "hosts:"]
        for part in self.parts:
            lines += [f"  - count: {part.hosts}", f"    devices: {part.devices_per_host}", f"    device: {part.gpu}"]
        return "\n".join([*lines, ""])

    @property
    def source(self) -> str:
        """Where its figures come from."""
        return "; ".join(dict.fromkeys(part.source for part in self.parts))


@cache
def cluster_names() -> tuple[str, ...]:
    """The GPUs that clusters may be named after."""
    found = (file.name.partition(".") for file in folder_of_clusters().iterdir())
    return tuple(sorted(name for name, _, suffix in found if suffix == "yaml"))


def named_cluster(text: str) -> NamedCluster | NamedClusters | None:
    """The cluster that a text on the command line names, or None: then it is a path.

    Raises:
        HelixError: HX105, it names a GPU of ours and no number of them, or one that cannot be.
    """
    if "+" not in text:
        return _equal_hosts(text)
    words = text.split("+")
    parts = [_equal_hosts(word) for word in words]
    known = [part for part in parts if part]
    if not known:
        return None
    if len(known) < len(words):
        other = words[parts.index(None)]
        message = f"names hosts that differ, and {other!r} is no GPU with a number: write h100:2x8+l40s:1x4"
        raise HelixError(Diagnostic("HX105", message, f"GPUs: {', '.join(cluster_names())}", text))
    return NamedClusters(tuple(known)) if len(known) > 1 else known[0]


def _equal_hosts(text: str) -> NamedCluster | None:
    """The hosts of one GPU that a text names, or None.

    Raises:
        HelixError: HX105, as above.
    """
    match = _NAMED.fullmatch(text)
    gpu = (match["gpu"] or match["counted"]).lower() if match else ""
    if match is None or gpu not in cluster_names():
        return None
    devices = match["devices"] or match["count"]
    if devices is None:
        message, way = f"names a GPU, and does not say how many: {_how(gpu)}", f"a file of that name is ./{text}"
        raise HelixError(Diagnostic("HX105", message, way, text))
    found = NamedCluster(gpu, int(match["hosts"] or 1), int(devices))
    if not (1 <= found.hosts <= MOST_HOSTS and 1 <= found.devices_per_host <= MOST_DEVICES):
        message = f"a cluster has 1 to {MOST_HOSTS} hosts of 1 to {MOST_DEVICES} devices"
        raise HelixError(Diagnostic("HX105", message, _how(gpu), text))
    if found.devices_per_host > _IN_A_HOST and match["hosts"] is None:
        raise HelixError(_too_many(found, text))
    return found


def way_to_a_cluster(text: str) -> str | None:
    """What was meant by a text that is neither a file nor names a cluster; None where it looks like a path."""
    if not _WORD.fullmatch(text) or re.search(r"\.(?:ya?ml|json)$", text):
        return None
    known = (
        f"clusters by name: {', '.join(cluster_names())} ({HOW}); helixctl clusters lists them, "
        "helixctl clusters show h100:8 prints one to edit"
    )
    return f"did you mean '{meant}'? {known}" if (meant := _meant(text)) else known


def looks_like_a_cluster(text: str) -> bool:
    """Whether a text that is no file was meant to name a cluster, where it could be anything."""
    return re.fullmatch(rf"\w+:{_DIGITS}(?:x{_DIGITS})?", text) is not None or _meant(text) is not None


def _meant(text: str) -> str | None:
    """The name that a text is another spelling of, or a slip for; never an A100 for an A10, which is another GPU."""
    from helixctl.spec.fields import like

    lower = text.lower().replace("*", "x")
    counts = rf"(?:(?P<hosts>{_DIGITS})x)?(?P<devices>{_DIGITS})"
    before, after = counts.replace("?P<", "?P<first_"), rf"(?:x?{counts})?"
    ours = "|".join(cluster_names())
    match = re.fullmatch(rf"{_MAKER}(?:{before}x)?{_MAKER}(?P<gpu>{ours})(?![0-9a-wyz]){_FORM}{after}", lower)
    if match:
        way = "" if match["devices"] else "first_"
        return _spelled(match["gpu"], match[f"{way}hosts"], match[f"{way}devices"])
    name, colon, numbers = lower.partition(":")
    close = like(name, cluster_names()) if colon and name not in _OTHERS else []
    match = re.fullmatch(counts, numbers)
    return _spelled(close[0], *(match.groups() if match else (None, None))) if close else None


def _spelled(gpu: str, hosts: str | None, devices: str | None) -> str:
    """A name of ours; of more devices than a host has, whole hosts."""
    count = int(devices or _IN_A_HOST)
    if hosts is None and count > _IN_A_HOST and count % _IN_A_HOST == 0:
        return f"{gpu}:{count // _IN_A_HOST}x{_IN_A_HOST}"
    return f"{gpu}:{hosts}x{count}" if hosts else f"{gpu}:{count}"


def _too_many(found: NamedCluster, text: str) -> Diagnostic:
    """A count of GPUs alone means one host. No host has this number of GPUs: ask for the number of hosts."""
    devices = found.devices_per_host
    message = f"{devices} GPUs and no number of hosts: a host of {found.gpu} has {_IN_A_HOST}"
    hint = f"{found} is one host of {devices}"
    if devices % _IN_A_HOST == 0:
        hosts = devices // _IN_A_HOST
        hint = f"{found.gpu}:{hosts}x{_IN_A_HOST} is {hosts} hosts of {_IN_A_HOST}, {hint}"
    return Diagnostic("HX105", message, hint, text)


def _how(gpu: str) -> str:
    return HOW.replace("h100", gpu).replace("H100", gpu.upper())


@cache
def figures_of(gpu: str) -> dict[str, Any]:
    """What the file of a GPU says: its device, its links, and which measured rates are its own."""
    from helixctl.spec.parse import parse_mapping

    return parse_mapping(_text_of(gpu), f"{gpu}.yaml")


def _text_of(gpu: str) -> str:
    return (folder_of_clusters() / f"{gpu}.yaml").read_text(encoding="utf-8")


def folder_of_clusters() -> Traversable:
    """Where the files of the clusters by name are: ``h100.yaml``, and ``h100.rates.json`` with what was measured."""
    from importlib.resources import files

    return files("helixctl.spec") / "clusters"
