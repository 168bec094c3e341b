"""The arithmetic of the benchmarks: turns, medians, ratios, tables, counts."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import repeat

import pytest
import torch
from torch import nn

from benchmarks.flops import flops, more
from benchmarks.layers import Counting, Layer, Machine, Point, _made, count
from benchmarks.memory import _watched
from benchmarks.models import SIZES
from benchmarks.report import Table, not_run
from benchmarks.timing import Spread, Subject, by_clock, compare, kernels, processor, spread, wall

CPU = torch.device("cpu")


class Clock:
    """Passes as much time as the subject in turn takes."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def taking(clock: Clock, seconds: Iterator[float], log: list[str], name: str) -> Subject:
    def work() -> None:
        log.append(name)
        clock.now += next(seconds)

    return Subject(lambda: log.append("enter"), lambda: log.append("leave"), work)


def test_ratios_are_taken_round_by_round_so_that_a_busy_machine_cancels() -> None:
    clock, busy = Clock(), (1, 1, 50, 3, 7)
    one, two = (taking(clock, iter([seconds * slow for slow in busy]), [], "") for seconds in (2.0, 3.0))
    found = compare({"one": one, "two": two}, lambda: None, 4, by_clock(clock))
    assert found["one"].ratio == Spread(1.0, 1.0, 1.0)
    assert found["two"].ratio == Spread(1.5, 1.5, 1.5)
    assert found["one"].seconds.median == pytest.approx(10.0)


def test_subjects_take_turns_and_the_first_round_only_warms_up() -> None:
    clock, log = Clock(), []
    compare({name: taking(clock, repeat(1.0), log, name) for name in "abc"}, lambda: None, 3, by_clock(clock))
    order = [entry for entry in log if entry in "abc"]
    assert "".join(order) == "abc" + "bca" + "cab" + "abc"
    assert log[:3] == ["enter", "a", "leave"]


def test_a_subject_is_taken_away_when_its_work_fails() -> None:
    left: list[bool] = []
    with pytest.raises(ZeroDivisionError):
        compare({"a": Subject(leave=lambda: left.append(True), work=lambda: 1 / 0)}, lambda: None, 1)
    assert left == [True]


def test_a_subject_is_taken_away_when_it_came_in_part() -> None:
    left: list[bool] = []
    with pytest.raises(ZeroDivisionError):
        compare({"a": Subject(enter=lambda: 1 / 0, leave=lambda: left.append(True))}, lambda: None, 1)
    assert left == [True]


def test_on_a_processor_only_work_counts_and_not_waiting_for_others() -> None:
    assert processor(lambda: time.sleep(0.2)) < 0.1 < wall(lambda: time.sleep(0.2))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_taken_for_its_work() -> None:
    with pytest.raises(RuntimeError, match="no GPU"):
        kernels(lambda: torch.ones(4) + 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_what_it_computes_counts_and_not_who_asks_for_it() -> None:
    x = torch.randn(2048, 2048, device="cuda")
    once = kernels(lambda: x @ x)
    late = kernels(lambda: (x @ x, time.sleep(0.2)))
    assert late < 2 * once + 0.05 < 0.1
    assert kernels(lambda: [x @ x for _ in range(8)]) > 4 * once


def test_quartiles_stay_within_what_was_measured() -> None:
    assert spread([5.0, 1.0, 2.0, 4.0, 3.0]) == Spread(3.0, 2.0, 4.0)
    assert spread([7.0]) == Spread(7.0, 7.0, 7.0)
    assert f"{spread([1.0, 2.0, 3.0]):.2f}" == "2.00 (1.50 to 2.50)"


def test_tables_say_what_was_not_run() -> None:
    rows = {"one": {"x": 1.25, "y": Spread(1, 0.5, 2)}, "two": not_run("there is none"), "three": {"x": "text"}}
    table = Table("name", {"x": ".1f", "y": ".2f"}, rows, "note")
    assert table.markdown.splitlines() == [
        "| name | x | y |",
        "|---|---|---|",
        "| one | 1.2 | 1.00 (0.50 to 2.00) |",
        "| two | not run: there is none |  |",
        "| three | text |  |",
        "",
        "note",
    ]
    told = json.loads(json.dumps(table.as_json()))
    assert told["rows"]["one"] == {"x": 1.25, "y": {"median": 1, "low": 0.5, "high": 2}}
    assert told["rows"]["two"] == {"not run": "there is none"}


def test_a_matrix_product_counts_two_operations_for_each_weight_and_row() -> None:
    layer = nn.Linear(6, 4, bias=False, device="meta")
    assert flops(lambda: layer(torch.empty(3, 6, device="meta"))) == 2 * 3 * 6 * 4
    assert more({"plain UNet": 200, "other": 201}, "other") == pytest.approx(0.5)


def test_tensors_count_when_they_are_new_and_views_do_not() -> None:
    x = torch.ones(4, 8)
    with Counting() as counted:
        x.view(8, 4).transpose(0, 1)[:2]
        (x + 1).flatten()
    assert (counted.tensors, counted.bytes) == (1, 4 * 8 * 4)


@pytest.mark.parametrize("point", [Point(pixels=64), Point(pixels=64, units=3), Point(pixels=64, tokens=16, batch=2)])
def test_a_layer_is_plain_again_after_every_subject(point: Point) -> None:
    layer = Layer(Machine(SIZES["tiny"], CPU, torch.float32, 1), point)

    def out() -> torch.Tensor:
        return layer.attn2(layer.x, encoder_hidden_states=layer.context)

    with torch.no_grad():
        plain = out()
        for name, subject in layer.subjects().items():
            subject.enter()
            assert torch.equal(out(), plain) == (name == "plain")
            subject.leave()
            assert torch.equal(out(), plain)


def test_a_lone_unit_makes_what_attention_gives_and_the_sum_and_hardly_more() -> None:
    layer = Layer(Machine(SIZES["tiny"], CPU, torch.float32, 1), Point(pixels=512))
    hidden = layer.x.numel() * layer.x.element_size()
    made = {name: _made(subject, layer.run)[1] for name, subject in layer.subjects().items()}
    assert made["ours"] - made["plain"] < 2.1 * hidden < made["diffusers"] - made["plain"]


def test_arithmetic_of_a_layer_grows_with_units_and_tokens_and_stays_below_diffusers() -> None:
    tables = {table.name: table.rows for table in count(SIZES["sdxl"])}
    units = [row["ours, %"] for row in tables["arithmetic: units of 4 tokens"].values()]
    sides = [row["ours, %"] for row in tables["arithmetic: side of the picture"].values()]
    tokens = tables["arithmetic: tokens of one unit"]
    assert units == sorted(units)
    assert units[-1] == pytest.approx(8 * units[0])
    assert sides == sorted(sides)  # the text's keys and values weigh less in large pictures
    assert all(row["ours, %"] < row["diffusers, %"] for rows in tables.values() for row in rows.values())
    assert tokens["16"]["ours, %"] == pytest.approx(4 * tokens["4"]["ours, %"])


def test_memory_is_seen_even_where_it_was_free_before() -> None:
    for _ in range(8):
        torch.ones(6 << 20)  # the C library keeps some of it for later
    _, peak = _watched(lambda: torch.ones(6 << 20))
    assert peak is None or 20 < peak < 40
