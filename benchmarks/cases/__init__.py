"""The benchmarks, one module each.

A case is a module here with one or both of

    def times(setting: Setting) -> Iterator[Row]     # run with one thread and with all, a process each
    def counts(setting: Setting) -> Iterator[Row]    # memory and sizes, where no clock runs: run once

It asserts parity with every peer before it times, and yields `Row`s (see `benchmarks.harness`: `Setting`, `Row`,
`time_rows`). In its process the pack is registered as `kinetograph`; our networks come from `benchmarks.ours`,
peers from `benchmarks.peers`, and one that is absent goes into the row's `absent` with the reason. Goals stand
in `goals.toml`, found by case, metric and the start of the size, and hold for every number of threads.
"""

from pathlib import Path

NAMES = sorted(file.stem for file in Path(__file__).parent.glob("[a-z]*.py"))
