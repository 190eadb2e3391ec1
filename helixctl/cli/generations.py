"""How a generation is printed: the layouts beside each other, and the memory of a device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from helixctl.cli.console import table
from helixctl.cli.layouts import LAYOUT, VERDICT, add_row
from helixctl.cli.tables import Column, Table
from helixctl.dag.retype import dequantised
from helixctl.plan import Plan
from helixctl.simulate import Forecast, KindMemory
from helixctl.solve import Row
from helixctl.solve.token_times import TokenTimes
from helixctl.spec import EqualHosts
from helixctl.units import counted, human_bytes, human_rate, human_seconds


def generations(rows: Sequence[Row]) -> Table:
    """The table of layouts: what users of an engine ask for."""
    made = table(
        "",
        LAYOUT,
        ">TTFT",
        ">per token",
        ">tokens/s",
        Column("per user", right=True, drop=8),
        Column("per device", right=True, drop=4),
        Column("exposed", right=True, drop=3),
        Column("cache", right=True, drop=5),
        Column("memory", right=True, drop=9),
        VERDICT,
    )
    for row in rows:
        add_row(made, row, _cells(row))
    return made


def _cells(row: Row) -> list[str]:
    found = row.candidate.forecast
    if found is None or found.generation is None:
        return ["-"] * 8
    held = [human_bytes(found.cache_nbytes), human_bytes(found.memory_nbytes)]
    if not row.fits:
        return [*["-"] * 6, *held]
    its = found.generation
    return [
        human_seconds(its.ttft_s),
        human_seconds(its.time_per_output_token_s),
        human_rate(its.output_tokens_per_s),
        human_rate(its.tokens_per_s_per_user, 1),
        human_rate(its.output_tokens_per_s / row.candidate.layout.devices, 1),
        human_seconds(its.decode.exposed_s) if its.decode.exposed_s else "0",
        *held,
    ]


def token_times_text(mean_s: float, times: TokenTimes) -> str:
    """The time per output token: its mean, and how it grows with the context."""
    each = " / ".join(human_seconds(seconds) for seconds in (times.p50_s, times.p90_s, times.p99_s))
    first, last = times.contexts
    return f"mean {human_seconds(mean_s)}, p50 / p90 / p99 {each}, over contexts of {first:,} to {last:,} tokens"


def memory_sheet(plan: Plan, forecast: Forecast) -> Table:
    """What the fullest device holds, and how many more tokens its cache could."""
    device = plan.cluster.only.device
    arenas = forecast.memory_nbytes - forecast.weight_nbytes - forecast.cache_nbytes
    free = device.available - forecast.memory_nbytes
    work, layout = plan.workload, plan.layout
    sequences = layout.most_sequences(work.batch)
    room = plan.step("decode").room
    token = forecast.cache_nbytes / (sequences * room)
    blocks = "" if room == work.positions else f" ({work.positions:,} in whole blocks)"
    kept = f" in {work.cache_dtype}" if work.cache_dtype else ""
    made = table("memory of the fullest device", ">bytes")
    stored = ", as they are stored" if dequantised(plan.model) is not plan.model else ""
    made.add_row(f"weights{stored}", human_bytes(forecast.weight_nbytes))
    made.add_row(
        f"KV cache{kept}: {counted(sequences, 'sequence')} x {room:,} tokens{blocks} x {human_bytes(round(token))}",
        human_bytes(forecast.cache_nbytes),
    )
    made.add_row("arenas of prefill and decode", human_bytes(arenas))
    if device.memory > device.available:
        made.add_row("reserve", human_bytes(device.memory - device.available))
    more = f", room for {int(free / token):,} tokens more" if token else ""
    made.add_row(f"free{more}", human_bytes(free))
    return made


def memory_of_kinds(plan: Plan, forecast: Forecast) -> object:
    """What the fullest device of every kind of hosts holds, where these differ, and how many have nothing to do."""
    cluster = plan.cluster
    used = Counter(map(cluster.kind_of, range(plan.layout.devices)))
    kinds = [(hosts, its, used[kind]) for kind, (hosts, its) in enumerate(_pairs(plan, forecast))]
    names = Counter(hosts.device.name for hosts, _, _ in kinds)
    heads = [
        hosts.device.name if names[hosts.device.name] == 1 else f"{hosts.device.name}, {hosts.devices_per_host} a host"
        for hosts, _, _ in kinds
    ]
    made = table("memory of the fullest", *(f">{head}" for head in heads))
    made.add_row("devices at work", *(f"{count} of {hosts.devices}" for hosts, _, count in kinds))
    stored = ", as they are stored" if dequantised(plan.model) is not plan.model else ""
    made.add_row(f"weights{stored}", *(human_bytes(its.weight_nbytes) for _, its, _ in kinds))
    if forecast.cache_nbytes:
        made.add_row("KV cache", *(human_bytes(its.cache_nbytes) for _, its, _ in kinds))
    arenas = "arenas of prefill and decode" if forecast.generation else "arena"
    made.add_row(arenas, *(human_bytes(its.nbytes - its.weight_nbytes - its.cache_nbytes) for _, its, _ in kinds))
    reserves = [hosts.device.memory - hosts.device.available for hosts, _, _ in kinds]
    if any(reserves):
        made.add_row("reserve", *map(human_bytes, reserves))
    made.add_row("free", *(human_bytes(hosts.device.available - its.nbytes) for hosts, its, _ in kinds))
    return made


def _pairs(plan: Plan, forecast: Forecast) -> Iterator[tuple[EqualHosts, KindMemory]]:
    return zip(plan.cluster.kinds, forecast.memory_of_kinds, strict=True)
