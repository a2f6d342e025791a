"""The metrics of all workers as one text, in which each sample has a label `worker` (pure)."""

from collections.abc import Mapping


def merge(reports: Mapping[int, bytes]) -> bytes:
    """Merge the metrics of workers, by their numbers: the samples of a family together."""
    families: dict[str, list[str]] = {}
    heads: dict[str, list[str]] = {}
    for worker, report in reports.items():
        family = ""
        for line in report.decode().splitlines():
            if line.startswith("# "):
                family = line.split(" ", 3)[2]
                head = heads.setdefault(family, [])
                if line not in head:
                    head.append(line)
            elif line:
                families.setdefault(family, []).append(_labelled(line, worker))
    lines = (line for family in heads for line in [*heads[family], *families.get(family, [])])
    return "".join(f"{line}\n" for line in lines).encode()


def _labelled(sample: str, worker: int) -> str:
    name, brace, labels = sample.partition("{")
    if brace:
        return f'{name}{{worker="{worker}",{labels}'
    name, _, value = sample.partition(" ")
    return f'{name}{{worker="{worker}"}} {value}'
