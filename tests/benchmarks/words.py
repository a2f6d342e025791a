"""The words of tables and pictures, in English and Chinese."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Words:
    """One language."""

    suffix: str
    """Of its documents."""
    scenarios: dict[str, str]
    systems: dict[str, str]
    figures: dict[str, str]
    """Column headings, in their order."""
    panels: dict[str, str]
    """Titles in the picture."""
    summary: dict[str, str]
    """Column headings of the short table."""
    failed: str
    measured: str
    """A sentence about the run."""
    measured_briefly: str
    """The same without versions and rounds."""
    climbed: str
    """A sentence about a run with growing numbers of streams."""
    curve: tuple[str, ...]
    """Column headings of its table."""
    needs: tuple[str, ...]
    """Column headings of what follows from it."""
    axes: tuple[str, str, str]
    """Labels in its picture: streams, CPU, memory."""
    workers: tuple[str, str]
    """One worker, and two."""


ENGLISH: Final = Words(
    suffix=".md",
    scenarios={
        "chat": "a chat request",
        "embeddings": "16 vectors of 1024 numbers; a request",
        "burst": "100 events in one write; a stream",
        "flood": "100 events in 100 writes without a pause; a stream",
        "paced-500x30": "500 streams of 30 events, 10 a second; an event",
        "paced-500x300": "500 streams of 300 events, 10 a second; an event",
        "paced-1000x30": "1000 streams of 30 events, 10 a second; an event",
        "paced-1000x300": "1000 streams of 300 events, 10 a second; an event",
        "open": "500 streams opened at once, timed to the first event; a stream",
        "upload": "8 MiB up; a request",
        "download": "8 MiB down; a request",
        "start": "a new process: first answer, memory when idle and for each open stream",
        "token": "getting the token that is in hand",
    },
    systems={
        "nginx": "plain nginx",
        "floor": "a bare Quart view (the floor)",
        "proxy": "**this service**",
        "uvicorn": "this service on uvicorn",
        "granian": "this service on Granian",
        "workers": "this service, two workers",
        "offload": "nginx relays, this service has the token",
        "flask": "the Flask original, rebuilt",
        "haproxy": "HAProxy",
        "caddy": "Caddy",
        "portkey": "Portkey gateway",
        "lm-proxy": "lm-proxy",
        "litellm": "LiteLLM proxy",
    },
    figures={
        "cpu_us": "CPU, µs",
        "x_nginx": "× nginx",
        "x_floor": "× floor",
        "p50_ms": "p50, ms",
        "p99_ms": "p99, ms",
        "gap_p99_ms": "gap p99, ms",
        "ready_s": "first answer, s",
        "idle_mb": "idle, MB",
        "stream_kib": "KiB a stream",
    },
    panels={
        "chat": "CPU: a chat request",
        "burst": "CPU: 100 events at once",
        "paced-500x30": "CPU: an event of a slow stream",
    },
    summary={
        "chat": "a chat request, µs of CPU",
        "burst": "100 events at once, µs of CPU",
        "paced-500x30": "an event of a slow stream, µs of CPU",
        "open": "first event of 500 streams opened at once, p99, ms",
        "start": "memory when idle, MB",
    },
    failed="failed",
    measured="Measured on {date}, commit {commit}: {machine}; {system}; {versions}. Medians of {rounds} "
    "rounds, with the lowest and the highest in parentheses.",
    measured_briefly="Measured on {date}, commit {commit}: {machine}; {system}.",
    climbed="Measured on {date}, commit {commit}: {machine}; {system}; {versions}. "
    "An event a second on each stream, over 10 seconds.",
    curve=(
        *("workers", "open streams", "CPU, % of a core", "memory, MB"),
        *("delay p99, ms", "gap p99, ms", "lost or altered"),
    ),
    needs=("open streams", "events a second", "cores", "memory, GB", "file descriptors"),
    axes=("open streams", "CPU, % of a core", "memory, MB"),
    workers=("one worker", "two workers"),
)

CHINESE: Final = Words(
    suffix=".zh-CN.md",
    scenarios={
        "chat": "一次聊天请求",
        "embeddings": "16 个 1024 维向量；每个请求",
        "burst": "一次写出 100 个事件；每个流",
        "flood": "连续 100 次写出 100 个事件；每个流",
        "paced-500x30": "500 个流，每个 30 个事件，每秒 10 个；每个事件",
        "paced-500x300": "500 个流，每个 300 个事件，每秒 10 个；每个事件",
        "paced-1000x30": "1000 个流，每个 30 个事件，每秒 10 个；每个事件",
        "paced-1000x300": "1000 个流，每个 300 个事件，每秒 10 个；每个事件",
        "open": "同时打开 500 个流，计时到第一个事件；每个流",
        "upload": "上传 8 MiB；每个请求",
        "download": "下载 8 MiB；每个请求",
        "start": "新进程：到第一次响应的时间，空闲内存，每个打开的流占用的内存",
        "token": "取得内存里的令牌",
    },
    systems={
        "nginx": "纯 nginx",
        "floor": "空的 Quart 视图（基线）",
        "proxy": "**本服务**",
        "uvicorn": "本服务，uvicorn",
        "granian": "本服务，Granian",
        "workers": "本服务，两个工作进程",
        "offload": "nginx 转发，令牌来自本服务",
        "flask": "Flask 原版（重写）",
        "haproxy": "HAProxy",
        "caddy": "Caddy",
        "portkey": "Portkey gateway",
        "lm-proxy": "lm-proxy",
        "litellm": "LiteLLM proxy",
    },
    figures={
        "cpu_us": "CPU，µs",
        "x_nginx": "× nginx",
        "x_floor": "× 基线",
        "p50_ms": "p50，ms",
        "p99_ms": "p99，ms",
        "gap_p99_ms": "间隔 p99，ms",
        "ready_s": "第一次响应，s",
        "idle_mb": "空闲，MB",
        "stream_kib": "每个流 KiB",
    },
    panels={
        "chat": "CPU：一次聊天请求",
        "burst": "CPU：同时到达的 100 个事件",
        "paced-500x30": "CPU：慢速流的一个事件",
    },
    summary={
        "chat": "一次聊天请求，CPU µs",
        "burst": "同时到达的 100 个事件，CPU µs",
        "paced-500x30": "慢速流的一个事件，CPU µs",
        "open": "同时打开 500 个流，第一个事件的 p99，ms",
        "start": "空闲内存，MB",
    },
    failed="失败",
    measured="测量日期 {date}，提交 {commit}：{machine}；{system}；{versions}。数值是 {rounds} 轮的中位数，"
    "括号里是最低值和最高值。",
    measured_briefly="测量日期 {date}，提交 {commit}：{machine}；{system}。",
    climbed="测量日期 {date}，提交 {commit}：{machine}；{system}；{versions}。"
    "每个流每秒一个事件，测量 10 秒。",
    curve=(
        *("工作进程", "打开的流", "CPU，占一个核的 %", "内存，MB"),
        *("延迟 p99，ms", "间隔 p99，ms", "丢失或改变"),
    ),
    needs=("打开的流", "每秒事件", "核", "内存，GB", "文件描述符"),
    axes=("打开的流", "CPU，占一个核的 %", "内存，MB"),
    workers=("一个工作进程", "两个工作进程"),
)

LANGUAGES: Final = (ENGLISH, CHINESE)
