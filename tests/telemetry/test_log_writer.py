"""The log writer: no request waits for it, and dropped lines are counted."""

import os
import threading
import time
from pathlib import Path

import pytest

from proxy.settings import Logs
from proxy.telemetry import Metrics, configure_logs, get_logger
from proxy.telemetry.log_writer import BYTES_MAX, LINES_MAX, LogWriter, writing_to
from tests.pace import PATIENCE, paced

LINE = "x" * 99 + "\n"


def until_dropped(writer: LogWriter) -> None:
    """Wait until a line is dropped."""
    end = time.monotonic() + PATIENCE
    while not writer.dropped:
        assert time.monotonic() < end
        time.sleep(0)


def test_lines_are_written_whole_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as stream, writing_to(stream) as writer:
        for number in range(5000):
            writer.write(f"line {number}\n")
    assert path.read_text().splitlines() == [f"line {number}" for number in range(5000)]
    assert writer.dropped == 0


def test_lines_of_one_moment_are_written_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []

    def write(descriptor: int, data: bytes) -> int:
        written.append(bytes(data))
        return original(descriptor, data)

    original = os.write
    monkeypatch.setattr(os, "write", write)
    with (tmp_path / "log").open("w") as stream, writing_to(stream) as writer:
        for _ in range(100):
            writer.write(LINE)
    assert b"".join(written) == LINE.encode() * 100
    assert len(written) < 100


def test_threads_do_not_mix_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as stream, writing_to(stream) as writer:
        threads = [
            threading.Thread(target=lambda name=name: [writer.write(name * 500 + "\n") for _ in range(200)])
            for name in "abcd"
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    lines = path.read_text().splitlines()
    assert len(lines) == 800
    assert all(line in {"a" * 500, "b" * 500, "c" * 500, "d" * 500} for line in lines)


def test_workers_that_share_a_full_pipe_do_not_mix_their_lines() -> None:
    reading, writing = os.pipe()
    lines = {letter: f"{letter * 299}\n" for letter in "ab"}
    count = 1000  # more than the pipe holds

    def work(letter: str, descriptor: int) -> None:
        with os.fdopen(descriptor, "w") as stream, writing_to(stream) as writer:
            for _ in range(count):
                writer.write(lines[letter])
            writer.finish(PATIENCE)

    workers = [threading.Thread(target=work, args=[letter, os.dup(writing)]) for letter in lines]
    os.close(writing)
    for worker in workers:
        worker.start()
    with os.fdopen(reading) as log:
        found = log.readlines()
    for worker in workers:
        worker.join()
    assert sorted(found) == sorted(line for line in lines.values() for _ in range(count))


def test_an_unread_pipe_blocks_nothing_and_its_losses_are_counted() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream, os.fdopen(reading, "rb"):
        began = time.thread_time()
        with writing_to(stream) as writer:
            for _ in range(3 * LINES_MAX):
                writer.write(LINE)
            assert time.thread_time() - began < paced(5.0)
            ended = time.monotonic()
        assert time.monotonic() - ended < paced(5.0)
        assert LINES_MAX <= writer.dropped < 3 * LINES_MAX


def test_a_few_enormous_lines_are_bounded_as_well() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream, os.fdopen(reading, "rb"), writing_to(stream) as writer:
        for _ in range(10):
            writer.write("x" * (BYTES_MAX // 3))
        assert writer.dropped >= 5


def test_waiting_lines_are_written_when_possible() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with os.fdopen(writing, "w") as stream, os.fdopen(reading, "rb") as log, writing_to(stream) as writer:
        for _ in range(5000):
            writer.write(LINE)
        assert log.read(5000 * len(LINE)) == LINE.encode() * 5000


@pytest.mark.parametrize("kind", ["no reader", "no space", "closed", "absent"])
def test_a_dead_log_raises_nothing(kind: str) -> None:
    if kind == "no reader":
        reading, writing = os.pipe()
        os.close(reading)
        stream = os.fdopen(writing, "w")
    elif kind == "no space":
        stream = Path("/dev/full").open("w")  # noqa: SIM115
    else:
        stream = Path(os.devnull).open("w")  # noqa: SIM115
        if kind == "closed":
            stream.close()
    with writing_to(None if kind == "absent" else stream) as writer:
        for _ in range(100):
            writer.write(LINE)
        until_dropped(writer)
    stream.close()


def test_the_metrics_count_lost_lines() -> None:
    with writing_to(None) as writer:
        configure_logs(Logs(format="json"), writer)
        get_logger("room").warning("lost")
        text = Metrics(list).render()[0].decode()
    configure_logs(Logs())
    assert "llm_proxy_log_lines_dropped_total 1.0" in text
