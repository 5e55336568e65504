"""The benchmarks, one module each.

A case is a module here with

    def run(setting: Setting) -> Iterator[Row]

It asserts parity with every peer before it times, and yields one `Row` per size and metric (see
`benchmarks.harness`: `Setting`, `Row`, `compare`). It runs in a process of its own in which the pack is
registered as `kinetograph`; peers come from `benchmarks.peers`, and one that is absent goes into the row's
`absent` with the reason. Goals stand in `goals.toml`, found by case, metric and the start of the size.
"""

from pathlib import Path

NAMES = sorted(file.stem for file in Path(__file__).parent.glob("[a-z]*.py"))
