"""The words of the status page, in English and in Chinese (pure)."""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Final

import msgspec

_NO_BREAK: Final = "\u00a0"


class Units(msgspec.Struct, frozen=True):
    """How durations are written."""

    days: str
    hours: str
    minutes: str
    seconds: str
    milliseconds: str

    def duration(self, seconds: float) -> str:
        """Write a duration with its two largest units."""
        if seconds < 1:
            return f"{seconds * 1000:.0f} {self.milliseconds}" if seconds > 0 else f"0 {self.seconds}"
        if seconds < 10:
            return f"{seconds:.1f} {self.seconds}"
        whole = int(seconds)
        steps = ((86400, self.days), (3600, self.hours), (60, self.minutes), (1, self.seconds))
        for (size, unit), (smaller, lesser) in pairwise(steps):
            if whole >= size:
                rest = whole % size // smaller
                return f"{whole // size} {unit}" + (f" {rest} {lesser}" if rest else "")
        return f"{whole} {self.seconds}"


class Words(msgspec.Struct, frozen=True, kw_only=True):
    """The page in one language."""

    lang: str
    other_lang: str
    other_language: str
    units: Units
    title: str
    sign_in: str
    sign_in_about: str
    sign_out: str
    key: str
    wrong_key: str
    live: str
    lost: str
    offline: str
    snapshot: str
    as_of: str
    ready: str
    not_ready: str
    draining: str
    workers: str
    silent: str
    callers: str
    caller: str
    streams: str
    recent: str
    hour: str
    no_callers: str
    more_callers: str
    offloaded: str
    offloaded_note: str
    relay: str
    rate: str
    rate_now: str
    rate_chart: str
    running: str
    first_event: str
    no_first_event: str
    first_event_chart: str
    outcomes: str
    outcomes_chart: str
    no_outcomes: str
    results: Mapping[str, str]
    highest: str
    five_minutes_ago: str
    hour_ago: str
    now: str
    credentials: str
    no_credentials: str
    token_states: Mapping[str, str]
    life: str
    life_endless: str
    refreshed_in: str
    refreshed_now: str
    unavailable: str
    next_try: str
    waiting: str
    failures: str
    soft_mark: str
    hard_mark: str
    upstreams: str
    circuits: Mapping[str, str]
    no_circuit: str
    in_workers: str
    no_attempts: str
    attempts: str
    problems: str
    no_problems: str
    no_caller: str

    def duration(self, seconds: float) -> str:
        """Write a duration, which stays on one line; `∞` for an infinite one."""
        return "∞" if math.isinf(seconds) else self.units.duration(seconds).replace(" ", _NO_BREAK)


ENGLISH: Final = Words(
    lang="en",
    other_lang="zh-CN",
    other_language="中文",
    units=Units("d", "h", "min", "s", "ms"),
    title="Status",
    sign_in="Sign in",
    sign_in_about="This page needs the key that is set under [status] in the configuration.",
    sign_out="Sign out",
    key="Key",
    wrong_key="This key is not correct. Check the key under [status], and try again.",
    live="Live",
    lost="Connection lost. These are the last figures; the page keeps trying.",
    offline="This device is offline. These are the last figures.",
    snapshot="Snapshot; reload the page for newer figures",
    as_of="as of {time} UTC",
    ready="Ready",
    not_ready="Not ready: no token for the default upstream",
    draining="Shutting down",
    workers="{count} workers",
    silent="{silent} of {count} workers did not report, and are missing here",
    callers="Callers",
    caller="Caller",
    streams="Streams",
    recent="5 min",
    hour="1 h",
    no_callers="No requests in the last hour.",
    more_callers="{count} more callers are not shown.",
    offloaded="+ nginx",
    offloaded_note=(
        "+ nginx: nginx also relays requests of these callers itself; they are in its log, not here."
    ),
    relay="Relay",
    rate="Requests per second",
    rate_now="now {value}",
    rate_chart="Requests per second in the last five minutes, now {value}, at most {highest}",
    running="In progress",
    first_event="First event",
    no_first_event=f"no{_NO_BREAK}streams",
    first_event_chart=(
        "Time to the first event in the last hour; in the last five minutes p50 {p50} and p99 {p99}"
    ),
    outcomes="Outcomes of the last hour",
    outcomes_chart="Outcomes by minute in the last hour: {results}",
    no_outcomes="No request has ended in the last hour.",
    results={
        "ok": "Answered",
        "left": "Ended by the caller",
        "rejected": "Rejected",
        "failed": "Failed",
    },
    highest="highest: {value}",
    five_minutes_ago="5 min ago",
    hour_ago="1 h ago",
    now="now",
    credentials="Credentials",
    no_credentials="No credentials are configured.",
    token_states={
        "empty": "No token",
        "fresh": "Valid",
        "stale": "Valid, being refreshed",
        "suspect": "Rejected once, being replaced",
        "expired": "Expired",
    },
    life="{left} left of {life}",
    life_endless="does not expire",
    refreshed_in="refreshed in {time}",
    refreshed_now="refresh is due",
    unavailable="no token can be sent",
    next_try="next attempt in {time}",
    waiting="{count} requests are waiting",
    failures="{failed} of {count} fetches failed",
    soft_mark="refreshed from here on",
    hard_mark="no longer sent from here on",
    upstreams="Upstreams",
    circuits={"closed": "Circuit closed", "opened": "Circuit open", "half-opened": "Circuit being tested"},
    no_circuit="No circuit breaker",
    in_workers="in {count} of {workers} workers",
    no_attempts="No attempts yet.",
    attempts="Attempts since start-up:",
    problems="Recent errors",
    no_problems="No errors. The last 25 failures and 25 rejections would be listed here.",
    no_caller="unknown caller",
)
CHINESE: Final = Words(
    lang="zh-CN",
    other_lang="en",
    other_language="English",
    units=Units("天", "小时", "分", "秒", "毫秒"),
    title="状态",
    sign_in="登录",
    sign_in_about="查看本页需要配置文件 [status] 中设置的 key。",
    sign_out="退出",
    key="Key",
    wrong_key="key 不正确。请核对 [status] 中的 key 后重试。",
    live="实时",
    lost="连接已断开，当前显示的是最后一次数据，正在重连。",
    offline="设备已离线，当前显示的是最后一次数据。",
    snapshot="快照，刷新页面可查看最新数据",
    as_of="截至 UTC {time}",
    ready="就绪",
    not_ready="未就绪：默认上游没有令牌",
    draining="正在停止",
    workers="{count} 个工作进程",
    silent="{count} 个工作进程中有 {silent} 个没有响应，其数据未计入",
    callers="调用方",
    caller="调用方",
    streams="流",
    recent="5 分钟",
    hour="1 小时",
    no_callers="最近一小时没有请求。",
    more_callers="另有 {count} 个调用方未显示。",
    offloaded="+ nginx",
    offloaded_note="+ nginx：这些调用方的部分请求由 nginx 直接转发，记录在 nginx 的日志中，不计入本页。",
    relay="转发",
    rate="每秒请求数",
    rate_now="当前 {value}",
    rate_chart="最近五分钟的每秒请求数，当前 {value}，最高 {highest}",
    running="进行中",
    first_event="首个事件",
    no_first_event="没有流",
    first_event_chart="最近一小时的首个事件耗时；最近五分钟 p50 为 {p50}，p99 为 {p99}",
    outcomes="最近一小时的结果",
    outcomes_chart="最近一小时每分钟的结果：{results}",
    no_outcomes="最近一小时没有结束的请求。",
    results={"ok": "已响应", "left": "调用方中断", "rejected": "被拒绝", "failed": "失败"},
    highest="最高 {value}",
    five_minutes_ago="5 分钟前",
    hour_ago="1 小时前",
    now="现在",
    credentials="凭证",
    no_credentials="没有配置凭证。",
    token_states={
        "empty": "没有令牌",
        "fresh": "有效",
        "stale": "有效，正在更新",
        "suspect": "曾被拒绝，正在更换",
        "expired": "已过期",
    },
    life="剩余 {left}，有效期 {life}",
    life_endless="不过期",
    refreshed_in="{time}后更新",
    refreshed_now="已到更新时间",
    unavailable="没有可以发送的令牌",
    next_try="{time}后重试",
    waiting="{count} 个请求在等待",
    failures="获取 {count} 次，失败 {failed} 次",
    soft_mark="从这里开始更新",
    hard_mark="从这里开始不再发送",
    upstreams="上游",
    circuits={"closed": "未熔断", "opened": "已熔断", "half-opened": "已熔断，正在试探"},
    no_circuit="未启用熔断",
    in_workers="{workers} 个工作进程中的 {count} 个",
    no_attempts="还没有请求。",
    attempts="启动以来的请求：",
    problems="最近的错误",
    no_problems="没有错误。这里会列出最近 25 次失败和 25 次拒绝。",
    no_caller="未知调用方",
)
BY_LANGUAGE: Final[Mapping[str, Words]] = {"en": ENGLISH, "zh": CHINESE}
