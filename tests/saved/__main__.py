"""Saved and shipped workflows on any checkout of the pack: hash their frames, compare two such runs, or record.

A comparison bit for bit needs both runs on one computer with one thread.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from kinetograph.tests.saved.frames import collect, to_record
from kinetograph.tests.saved.page import OURS, layout_of
from kinetograph.tests.saved.runs import HERE, comfyui, read, read_folder, run, version_of, with_raw_frames
from kinetograph.tools import hosts
from kinetograph.tools.commands import ROOT


def read_arguments(arguments):
    parser = argparse.ArgumentParser(prog="kinetograph.tests.saved", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    hashes = commands.add_parser("hash", help="one hash per workflow, bit for bit; progress on stderr")
    hashes.add_argument("--json", type=Path, help="write the hashes here as well")
    hashes.add_argument("--only", nargs="+", metavar="NAME", help="these workflows alone")
    record = commands.add_parser("record", help="write frames.json and layout.json anew")
    for command in (hashes, record):
        command.add_argument(
            "--pack", type=Path, default=ROOT, help="checkout whose nodes run; default: this"
        )
        command.add_argument("--host", nargs="+", default=list(hosts.CARRIERS), help="versions of ComfyUI")
    hashes.add_argument(
        "--supplies",
        type=Path,
        help="checkout with workflows, inputs and pocket models; default: that of --pack",
    )
    compare = commands.add_parser("compare", help="two files of hashes; 0 only when all are equal")
    compare.add_argument("before", type=Path)
    compare.add_argument("after", type=Path)
    return parser.parse_args(arguments)


def main(arguments):
    choice = read_arguments(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if choice.command == "compare":
        return compare(read(choice.before), read(choice.after))
    return {"hash": write_hashes, "record": write_record}[choice.command](choice)


def write_hashes(choice):
    """{version: {"shipped/NAME" or "saved/NAME": hash}}"""
    supplies = choice.supplies or choice.pack
    # those of published files want a download first
    prompts = {
        f"shipped/{name}": prompt
        for name, prompt in read_folder(supplies / "workflows" / "api").items()
        if name.startswith("try_")
    }
    prompts |= {f"saved/{name}": prompt for name, prompt in read_folder(HERE / "api").items()}
    if choice.only:
        prompts = {name: prompts[name] for name in choice.only}
    hashes = {version: hashes_on(version, prompts, choice.pack, supplies) for version in choice.host}
    text = json.dumps(hashes, indent=1) + "\n"
    sys.stdout.write(text)
    if choice.json:
        choice.json.write_text(text)
    return 0


def hashes_on(version, prompts, pack, supplies):
    found = {}
    with tempfile.TemporaryDirectory(prefix="kinetograph-") as base:
        with comfyui(hosts.find(version), Path(base), pack, supplies) as server:
            for name, prompt in prompts.items():
                whole = with_raw_frames(prompt)
                result = run(server.client, whole)
                found[name] = collect(server.client, whole, result).digest()
                sys.stderr.write(f"{version} {name} {found[name]} {result.seconds:.1f} s\n")
    return found


def compare(before, after):
    """Print every workflow whose hash is not the same in both runs."""
    pairs = {(version, name) for run in (before, after) for version in run for name in run[version]}
    odd = 0
    for version, name in sorted(pairs):
        then, now = (run.get(version, {}).get(name, "absent") for run in (before, after))
        if then != now:
            odd += 1
            sys.stdout.write(f"{version} {name}: {then} became {now}\n")
    sys.stdout.write(f"{len(pairs) - odd} of {len(pairs)} are equal\n")
    return int(bool(odd or not pairs))


def write_record(choice):
    """What the saved workflows give, per version of ComfyUI, and the layout of the nodes that gave it."""
    records = {}
    for version in choice.host:
        with tempfile.TemporaryDirectory(prefix="kinetograph-") as base:
            with comfyui(hosts.find(version), Path(base), choice.pack) as server:
                graphs = read_folder(HERE / "graphs")
                records[version_of(server.client)] = {
                    name: to_record(collect(server.client, prompt, run(server.client, prompt, graphs[name])))
                    for name, prompt in read_folder(HERE / "api").items()
                }
                schemas = server.client.get_json("/object_info")
    layout = {kind: layout_of(schemas[kind]) for kind in sorted(schemas) if kind.startswith(OURS)}
    for name, content in (("frames", records), ("layout", layout)):
        (HERE / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
