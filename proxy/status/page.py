"""The HTML of the status page (pure): parts that are sent again if they change, and the page around them."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Final

from proxy.status.charts import life_bar, line_chart, stacked_chart
from proxy.status.overview import Overview, UpstreamRow
from proxy.status.words import Words
from proxy.telemetry import TokenReading
from proxy.telemetry.traffic import ExchangeProblem

_ICON: Final = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E%3Crect width='32' "
    "height='32' rx='8' fill='%230a5455'/%3E%3Cpath d='M8 22v-5M14 22V10M20 22v-8M26 22v-3' stroke='white' "
    "stroke-width='3' stroke-linecap='round'/%3E%3C/svg%3E"
)
_SIGNS: Final = {
    "fine": '<circle cx="8" cy="8" r="6.5"/><path d="M5 8.3 7.2 10.5 11 5.8"/>',
    "wait": '<circle cx="8" cy="8" r="6.5"/><path d="M8 4.5V8l2.3 1.6"/>',
    "wrong": '<path d="M8 1.8 15 14H1z"/><path d="M8 6.4v3.4M8 11.7v.2"/>',
}
_TOKEN_SIGNS: Final = {
    "empty": "wrong",
    "fresh": "fine",
    "stale": "fine",
    "suspect": "wait",
    "expired": "wrong",
}
_CIRCUIT_SIGNS: Final = {"closed": "fine", "opened": "wrong", "half-opened": "wait"}


def parts(overview: Overview, words: Words, now: float) -> dict[str, str]:
    """Return the parts of the page by their ids, in order.

    Args:
        overview: The values to show.
        words: The texts in one language.
        now: Seconds since the epoch.
    """
    return {
        "summary": _summary(overview, words, now),
        "callers": _card("callers", words.callers, _callers(overview, words)),
        "relay": _card("relay", words.relay, _relay(overview, words)),
        "credentials": _card("credentials", words.credentials, _credentials(overview.credentials, words)),
        "upstreams": _card("upstreams", words.upstreams, _upstreams(overview, words)),
        "problems": _card("problems", words.problems, _problems(overview.problems, words)),
    }


def page(content: Mapping[str, str], words: Words) -> str:
    """Return the whole page."""
    texts = "".join(
        f' data-{state}="{escape(text)}"'
        for state, text in (("live", words.live), ("lost", words.lost), ("offline", words.offline))
    )
    sign_out = (
        f'<form method="post" action="/status/sign-out?lang={words.lang[:2]}">'
        f"<button>{escape(words.sign_out)}</button></form>"
    )
    link = f'<p id="link" role="status"{texts}>{escape(words.snapshot)}</p>'
    body = (
        f"<header><h1>{escape(words.title)}</h1>{link}"
        f"<nav>{_other_language(words)}{sign_out}</nav></header>"
        f'<main data-events="/status/events?lang={words.lang[:2]}">{"".join(content.values())}</main>'
    )
    return _document(words, body, '<script type="module" src="/status/page/status.js"></script>')


def sign_in_page(words: Words, *, rejected: bool) -> str:
    """Return the page that asks for the key.

    Args:
        words: The texts in one language.
        rejected: Whether a wrong key was given.
    """
    alert = (
        f'<p class="notice" role="alert">{_sign("wrong")}{escape(words.wrong_key)}</p>' if rejected else ""
    )
    body = (
        f"<header><h1>{escape(words.title)}</h1><nav>{_other_language(words)}</nav></header>"
        f'<main><form class="card sign-in" method="post" action="/status/sign-in?lang={words.lang[:2]}">'
        f"<p>{escape(words.sign_in_about)}</p>{alert}"
        f'<label for="key">{escape(words.key)}</label>'
        '<input id="key" name="key" type="password" autocomplete="current-password" required autofocus>'
        f"<button>{escape(words.sign_in)}</button></form></main>"
    )
    return _document(words, body)


def _document(words: Words, body: str, script: str = "") -> str:
    return (
        f'<!doctype html><html lang="{words.lang}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<title>{escape(words.title)}</title><link rel="icon" href="{_ICON}">'
        '<link rel="stylesheet" href="/status/page/tokens.css">'
        f'<link rel="stylesheet" href="/status/page/status.css">{script}</head><body>{body}</body></html>'
    )


def _other_language(words: Words) -> str:
    lang = words.other_lang
    return f'<a href="/status?lang={lang[:2]}" lang="{lang}" hreflang="{lang}">{words.other_language}</a>'


def _summary(overview: Overview, words: Words, now: float) -> str:
    if overview.draining:
        state = _state("wait", words.draining)
    elif overview.ready < overview.workers - overview.silent:
        state = _state("wrong", words.not_ready)
    else:
        state = _state("fine", words.ready)
    notes = [words.as_of.format(time=time.strftime("%H:%M:%S", time.gmtime(now)))]
    if overview.silent:
        notes.append(words.silent.format(silent=overview.silent, count=overview.workers))
    elif overview.workers > 1:
        notes.append(words.workers.format(count=overview.workers))
    items = "".join(f"<span>{escape(note)}</span>" for note in notes)
    return f'<p id="summary" class="summary">{state}{items}</p>'


def _callers(overview: Overview, words: Words) -> str:
    if not overview.callers:
        return _nothing(words.no_callers)
    heads = [words.streams, words.recent, words.hour, words.results["rejected"], words.results["failed"]]
    head = "".join(
        f'<th scope="col" role="columnheader">{escape(text)}</th>' for text in (words.caller, *heads)
    )
    mark = f' <span class="quiet">{escape(words.offloaded)}</span>'
    rows = "".join(
        f'<tr role="row"><th scope="row" role="rowheader">{escape(row.name or words.no_caller)}'
        f"{mark if row.offloaded else ''}</th>"
        + "".join(
            f'<td role="cell">{_short(count)}</td>'
            for count in (
                *(row.streams, row.recent, row.last_hour),
                *(row.results.get("rejected", 0), row.results.get("failed", 0)),
            )
        )
        + "</tr>"
        for row in overview.callers
    )
    left_out = overview.callers_left_out
    more = _nothing(words.more_callers.format(count=left_out)) if left_out else ""
    note = _nothing(words.offloaded_note) if any(row.offloaded for row in overview.callers) else ""
    # The roles remain where the style sheet lays out rows as grids, which are no rows to some browsers.
    return (
        f'<table role="table"><thead role="rowgroup"><tr role="row">{head}</tr></thead>'
        f'<tbody role="rowgroup">{rows}</tbody></table>{more}{note}'
    )


def _relay(overview: Overview, words: Words) -> str:
    first = overview.recent_first_events
    figures = {
        words.rate: _rate(overview.rate),
        words.running: _number(overview.running),
        words.streams: _number(overview.streams),
        f"{words.first_event} p50": _time(first.p50, words),
        f"{words.first_event} p99": _time(first.p99, words),
    }
    quiet = {words.no_first_event: ' class="quiet"'}
    listed = "".join(
        f"<div><dt>{escape(name)}</dt><dd{quiet.get(value, '')}>{escape(value)}</dd></div>"
        for name, value in figures.items()
    )
    return (
        f'<dl class="figures">{listed}</dl>{_rate_chart(overview, words)}'
        f"{_first_event_chart(overview, words)}{_outcomes(overview, words)}"
    )


def _rate_chart(overview: Overview, words: Words) -> str:
    highest = _rate(max(overview.rates, default=0.0))
    label = words.rate_chart.format(value=_rate(overview.rate), highest=highest)
    chart = line_chart({"main": overview.rates}, label)
    caption = f"{words.rate} · {words.rate_now.format(value=_rate(overview.rate))}"
    return _figure(escape(caption), chart, words.five_minutes_ago, words.highest.format(value=highest), words)


def _first_event_chart(overview: Overview, words: Words) -> str:
    lines = {
        "main": [moment.p50 for moment in overview.first_events],
        "dashed": [moment.p99 for moment in overview.first_events],
    }
    recent = overview.recent_first_events
    highest = max((value for value in lines["dashed"] if value is not None), default=None)
    times = {"p50": _time(recent.p50, words), "p99": _time(recent.p99, words)}
    chart = line_chart(lines, words.first_event_chart.format(**times))
    caption = (
        f"{escape(words.first_event)} · <span>{_line_key('main')}p50 {escape(times['p50'])}</span> · "
        f"<span>{_line_key('dashed')}p99 {escape(times['p99'])}</span>"
    )
    top_label = words.highest.format(value=_time(highest, words))
    return _figure(caption, chart, words.hour_ago, top_label if highest is not None else "", words)


def _outcomes(overview: Overview, words: Words) -> str:
    totals = overview.totals
    shown = [(result, count) for result, count in totals.items() if count]
    if not shown:
        return _nothing(words.no_outcomes)
    summary = ", ".join(f"{words.results[result]} {_number(count)}" for result, count in shown)
    chart = stacked_chart(overview.results, words.outcomes_chart.format(results=summary))
    figure = _figure(escape(words.outcomes), chart, words.hour_ago, "", words)
    legend = "".join(
        f'<li><svg class="swatch" viewBox="0 0 12 12" aria-hidden="true"><rect class="{result}" width="12" '
        f'height="12"/></svg>{escape(words.results[result])} <b>{_number(count)}</b></li>'
        for result, count in totals.items()
    )
    codes = "".join(
        f"<li><code>{escape(outcome)}</code> <b>{_number(count)}</b></li>"
        for outcome, count in overview.outcomes.items()
    )
    return f'{figure}<ul class="legend">{legend}</ul><ul class="codes">{codes}</ul>'


def _figure(caption: str, chart: str, since: str, highest: str, words: Words) -> str:
    """Return a chart with its caption, which may hold markup, and the ends of its axis."""
    return (
        f"<figure><figcaption><b>{caption}</b><span>{escape(highest)}</span></figcaption>{chart}"
        f'<p class="axis"><span>{escape(since)}</span><span>{escape(words.now)}</span></p></figure>'
    )


def _credentials(readings: Sequence[TokenReading], words: Words) -> str:
    if not readings:
        return _nothing(words.no_credentials)
    legend = "".join(
        f'<li><svg class="swatch" viewBox="0 0 12 12" aria-hidden="true"><path class="mark {name}" '
        f'd="M6 0V12"/></svg>{escape(text)}</li>'
        for name, text in (("soft", words.soft_mark), ("hard", words.hard_mark))
    )
    return "".join(_credential(reading, words) for reading in readings) + f'<ul class="legend">{legend}</ul>'


def _credential(reading: TokenReading, words: Words) -> str:
    facts = [*_life_facts(reading, words)]
    if reading.backoff_seconds:
        facts.append(words.next_try.format(time=words.duration(reading.backoff_seconds)))
    if reading.waiters:
        facts.append(words.waiting.format(count=_number(reading.waiters)))
    failed = reading.counts.fetches_failed_passing + reading.counts.fetches_failed_permanent
    if failed:
        facts.append(words.failures.format(failed=_number(failed), count=_number(reading.counts.fetches)))
    details = " · ".join(facts)
    state = _state(_TOKEN_SIGNS[reading.state], words.token_states[reading.state])
    return (
        f'<div class="item"><h3>{escape(reading.credential)}</h3>{state}'
        f"{life_bar(reading.life, f'{reading.credential}: {details}')}<p>{escape(details)}</p></div>"
    )


def _life_facts(reading: TokenReading, words: Words) -> Iterable[str]:
    life = reading.life
    if life is None or life.age >= life.expiry:
        yield words.unavailable
        return
    if math.isinf(life.end):
        yield words.life_endless
        return
    left = words.duration(life.expiry - life.age)
    yield words.life.format(left=left, life=words.duration(life.end))
    if life.refresh < life.expiry:
        wait = life.refresh - life.age
        yield words.refreshed_in.format(time=words.duration(wait)) if wait > 0 else words.refreshed_now


def _upstreams(overview: Overview, words: Words) -> str:
    return "".join(_upstream(row, overview.workers - overview.silent, words) for row in overview.upstreams)


def _upstream(row: UpstreamRow, workers: int, words: Words) -> str:
    states = []
    for circuit, count in sorted(row.circuits.items()):
        where = words.in_workers.format(count=count, workers=workers)
        label = words.circuits[circuit] + ("" if count == workers else f" {where}")
        states.append(_state(_CIRCUIT_SIGNS[circuit], label))
    if not states:
        states.append(f'<span class="state quiet">{escape(words.no_circuit)}</span>')
    counts = " · ".join(
        f"<code>{escape(result)}</code>&nbsp;{_number(count)}" for result, count in row.attempts.items()
    )
    attempts = f"{escape(words.attempts)} {counts}" if counts else escape(words.no_attempts)
    return f'<div class="item"><h3>{escape(row.name)}</h3>{"".join(states)}<p>{attempts}</p></div>'


def _problems(problems: Sequence[ExchangeProblem], words: Words) -> str:
    if not problems:
        return _nothing(words.no_problems)
    return f'<ol class="problems">{"".join(_problem(problem, words) for problem in problems)}</ol>'


def _problem(problem: ExchangeProblem, words: Words) -> str:
    status = "" if problem.status is None else f" {problem.status}"
    label = f"{words.results[problem.result]}{status}"
    state = _state("wrong" if problem.result == "failed" else "wait", label)
    route = [problem.caller or words.no_caller, problem.endpoint, problem.upstream]
    path = " → ".join(escape(step) for step in route if step)
    reason = f'<span class="reason">{escape(problem.reason)}</span>' if problem.reason else ""
    moment = time.strftime("%m-%d %H:%M:%S", time.gmtime(problem.at))
    return (
        f"<li><p><span>{moment} UTC</span>{state}<code>{escape(problem.outcome)}</code></p>"
        f"<p><code>{escape(problem.request_id)}</code><span>{path}</span>{reason}</p></li>"
    )


def _card(name: str, title: str, content: str) -> str:
    return (
        f'<section id="{name}" class="card" aria-labelledby="{name}-title">'
        f'<h2 id="{name}-title">{escape(title)}</h2>{content}</section>'
    )


def _state(sign: str, text: str) -> str:
    return f'<span class="state {sign}">{_sign(sign)}{escape(text)}</span>'


def _sign(name: str) -> str:
    return f'<svg class="sign" viewBox="0 0 16 16" aria-hidden="true">{_SIGNS[name]}</svg>'


def _line_key(name: str) -> str:
    return (
        f'<svg class="line-key" viewBox="0 0 20 8" aria-hidden="true"><path class="line {name}" '
        'd="M0 4H20"/></svg>'
    )


def _nothing(text: str) -> str:
    return f'<p class="quiet">{escape(text)}</p>'


def _number(count: int) -> str:
    return f"{count:,}"


def _short(count: int) -> str:
    """Write a count for a narrow column."""
    if count < 100_000:
        return _number(count)
    return f"{count / 1e3:,.0f}k" if count < 10_000_000 else f"{count / 1e6:,.0f}M"


def _rate(value: float) -> str:
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def _time(seconds: float | None, words: Words) -> str:
    return words.no_first_event if seconds is None else words.duration(seconds)
