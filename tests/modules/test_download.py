"""Downloads against a hub on the loopback that does everything wrong: no wrong file under a final name, ever."""

import hashlib
import os
import re
import subprocess
import threading
import time
from dataclasses import replace

import pytest

from kinetograph.modules.download.errors import DownloadError
from kinetograph.modules.download.fetch import download
from kinetograph.modules.download.hub import Hub
from kinetograph.modules.families.family import Release
from kinetograph.tests.hub import Fault, blob_of, sha256_of
from kinetograph.tests.hub import Hub as Server

NAME, SOURCE = "model.safetensors", "owner/model"
CONTENT = os.urandom(300_000)
CONFIG = b'{"sample": "settings"}'
ROW = Release("Model", SOURCE, NAME, "lora", "any", folder="loras")
PINNED = replace(ROW, bytes=len(CONTENT), sha256=sha256_of(CONTENT))
PIPELINE = Release("Network", "owner/pipeline", "transformer", "diffusion_model", "any", folder="CogVideo")
STORE = Release(
    "Store",
    "https://store.example/files",
    "Rooms/archive.tar",
    "base",
    "any",
    folder="Rooms",
    needs=("Model",),
)
FOLDER = {
    "transformer/config.json": CONFIG,
    "transformer/diffusion_pytorch_model-00001-of-00002.safetensors": b"one" * 1000,
    "transformer/diffusion_pytorch_model-00002-of-00002.safetensors": b"two" * 1000,
    "transformer/diffusion_pytorch_model.safetensors.index.json": b'{"weight_map": {}}',
    "transformer/diffusion_pytorch_model.bin": b"a pickle",
    "transformer/diffusion_pytorch_model.fp16.safetensors": b"the same in fewer bits",
    "transformer_other/config.json": b"{}",
    "README.md": b"words",
}


class Bench:
    """A hub, a models folder, and what a download said and sent."""

    def __init__(self, server, models):
        self.server, self.models, self.said, self.steps = server, models, [], []
        self.faults = server.faults[NAME]
        # seconds
        self.timeout = 0.4

    def fetch(self, *rows, names=None, progress=None, address=None, token="", **wishes):
        def step(done, total):
            self.steps.append((done, total))
            if progress:
                progress(done, total)

        hub = Hub(address or self.server.address, token, timeout=self.timeout, pauses=(0.01, 0.01, 0.01))
        rows = {row.name: row for row in rows or (ROW,)}
        roots = lambda key: [self.models / key]  # noqa: E731
        return download(names or [next(iter(rows))], rows, roots, hub, self.said.append, step, **wishes)

    def refused(self, *rows, **wishes):
        """The words of the error."""
        with pytest.raises(DownloadError) as caught:
            self.fetch(*rows, **wishes)
        return str(caught.value)

    @property
    def files(self):
        """{place: content} of all that has a final name."""
        return {path: content for path, content in self._all() if not path.rpartition("/")[2].startswith(".")}

    @property
    def parts(self):
        """Contents of parts."""
        return [content for path, content in self._all() if path.endswith(".part")]

    def _all(self):
        return [
            (path.relative_to(self.models).as_posix(), path.read_bytes())
            for path in sorted(self.models.rglob("*"))
            if path.is_file()
        ]


@pytest.fixture
def bench(tmp_path):
    with Server({SOURCE: {NAME: CONTENT, "README.md": b"words"}, "owner/pipeline": FOLDER}) as server:
        yield Bench(server, tmp_path / "models")


WHOLE = {f"loras/{NAME}": CONTENT}


def test_a_file_is_fetched_and_reported(bench):
    report = bench.fetch(ROW)
    assert bench.files == WHOLE and bench.parts == []
    for word in (
        str(bench.models),
        "300,000 bytes",
        sha256_of(CONTENT),
        "not pinned by us",
        bench.server.commit(SOURCE),
    ):
        assert word in report
    (plan,) = bench.said
    for word in ("300.00 kB in 1 file", "licence: apache-2.0", str(bench.models / "loras"), "free"):
        assert word in plan
    assert bench.steps[-1] == (300_000, 300_000) and sorted(bench.steps) == bench.steps
    # of one commit for the whole run
    assert all(f"/resolve/{bench.server.commit(SOURCE)}/" in path for _, path, _ in bench.server.requests[1:])


def test_the_plan_comes_before_the_first_byte(bench):
    def stop(text):
        raise KeyboardInterrupt

    bench.said = type("Said", (), {"append": staticmethod(stop)})
    with pytest.raises(KeyboardInterrupt):
        bench.fetch(ROW)
    assert bench.server.sent == 0 and not bench.models.exists()


def test_a_pinned_file_is_told_as_published(bench):
    assert "as published" in bench.fetch(PINNED) and bench.files == WHOLE


def test_what_is_there_is_not_fetched_again(bench):
    bench.fetch(ROW)
    sent = bench.server.sent
    assert "was there already" in bench.fetch(ROW)
    assert (
        "was there already" in (report := bench.fetch(ROW, reads_all=True)) and sha256_of(CONTENT) in report
    )
    assert bench.server.sent == sent


def test_a_changed_file_of_the_same_size_is_seen_by_who_reads_it(bench):
    path = bench.models / "loras" / NAME
    path.parent.mkdir(parents=True)
    other = bytes([CONTENT[0] ^ 1]) + CONTENT[1:]
    path.write_bytes(other)
    assert "is another file" in bench.refused(ROW, reads_all=True)
    assert path.read_bytes() == other


def test_a_folder_is_its_weights_and_settings(bench):
    report = bench.fetch(PIPELINE)
    wanted = [
        path
        for path in FOLDER
        if path.startswith("transformer/") and ".bin" not in path and "fp16" not in path
    ]
    assert bench.files == {f"CogVideo/pipeline/{path}": FOLDER[path] for path in wanted}
    # git's hash is that of the hub; the report tells SHA-256 all the same
    assert hashlib.sha256(CONFIG).hexdigest() in report and len(report.splitlines()) == len(wanted) == 4


def test_needs_come_along_each_once(bench):
    second = replace(PIPELINE, needs=("Model",))
    first = replace(ROW, needs=("Network",))
    bench.fetch(first, second)
    assert {*WHOLE} < {*bench.files} and len(bench.files) == 5
    assert len(bench.server.asked(f"/{NAME}")) == 2  # the hub, and its storage


def test_needs_stay_away_when_nobody_wants_them(bench):
    bench.fetch(replace(ROW, needs=("Network",)), PIPELINE, with_needs=False)
    assert bench.files == WHOLE


@pytest.mark.parametrize("pattern, fits", [("*.safetensors", True), ("*.ckpt", False), ("*.*", False)])
def test_a_pattern_fits_one_file(bench, pattern, fits):
    row = replace(ROW, file=pattern, save_as="named.safetensors")
    if fits:
        bench.fetch(row)
        assert bench.files == {"loras/named.safetensors": CONTENT}
    else:
        assert "should hold one file" in bench.refused(row) and bench.files == {}


def test_an_unknown_name_is_told_with_the_known_ones(bench):
    words = bench.refused(ROW, names=["Modell"])
    assert "'Modell'" in words and words.endswith("such as Model.") and bench.server.requests == []


class TestFaults:
    """Each begins with what the hub or the disk does."""

    def test_breaks_off_once_and_is_resumed(self, bench):
        bench.faults.breaks_at, bench.faults.times = 100_000, 1
        bench.fetch(ROW)
        # not one byte twice
        assert bench.files == WHOLE and bench.server.sent == len(CONTENT)

    def test_breaks_off_always_and_keeps_the_part_for_the_next_run(self, bench):
        bench.faults.breaks_at = 100_000
        words = bench.refused(ROW)
        assert "again and again" in words and "100.00 kB" in words and "goes on from there" in words
        assert bench.files == {} and bench.parts == [CONTENT[:100_000]]
        bench.faults.breaks_at = None
        bench.fetch(ROW)
        assert bench.files == WHOLE and bench.parts == [] and bench.server.sent == len(CONTENT)

    def test_a_server_without_ranges_begins_anew(self, bench):
        bench.faults.breaks_at, bench.faults.times, bench.faults.whole_only = 100_000, 1, True
        bench.fetch(ROW)
        assert bench.files == WHOLE and bench.server.sent == len(CONTENT) + 100_000

    @pytest.mark.parametrize("says_length", [True, False])
    @pytest.mark.parametrize("sends", [CONTENT + b"more", CONTENT[:-5]], ids=["too long", "too short"])
    def test_sends_another_size_than_it_lists(self, bench, sends, says_length):
        bench.faults.sends, bench.faults.says_length = sends, says_length
        words = bench.refused(ROW)
        if says_length:
            # before any of it is taken
            assert f"300,000 bytes and sends {len(sends)} bytes" in words
        else:
            assert re.search("More than 300,000 bytes|with more bytes than it sends", words), words
        assert bench.files == {} and bench.parts == []

    @pytest.mark.parametrize(
        "change, told",
        [({"sends": CONTENT + b"more"}, "100000-300003 of 300004"), ({"range_from": 99_000}, "99000-")],
    )
    def test_goes_on_with_another_file_or_from_another_place(self, bench, change, told):
        bench.faults.breaks_at = 100_000
        bench.refused(ROW)
        bench.server.faults[NAME] = Fault(**change)
        assert f"sends bytes {told}" in bench.refused(ROW)
        assert bench.files == {} and bench.parts == [CONTENT[:100_000]]

    def test_lists_a_wrong_hash(self, bench):
        bench.faults.lists_sha256 = "0" * 64
        words = bench.refused(ROW)
        assert sha256_of(CONTENT) in words and "0" * 64 in words
        assert bench.files == {} and bench.parts == []

    def test_sends_wrong_bytes_of_a_small_file(self, bench):
        path = "transformer/config.json"
        bench.server.faults[path].sends = CONFIG[:-1] + b" "
        assert blob_of(CONFIG) in bench.refused(PIPELINE)
        assert f"CogVideo/pipeline/{path}" not in bench.files and bench.parts == []

    @pytest.mark.parametrize("change", [{"sha256": "1" * 64}, {"bytes": 299_999}])
    def test_holds_another_file_than_the_published(self, bench, change):
        words = bench.refused(replace(PINNED, **change))
        assert "another one than the published" in words and bench.server.sent == 0 and bench.files == {}

    @pytest.mark.parametrize("place", ["http://files.example/x", "ftp://localhost/x", "file:///etc/passwd"])
    def test_redirects_out_of_https(self, bench, place):
        bench.faults.redirects_to = place
        assert "which is not followed" in bench.refused(ROW) and bench.files == {}

    def test_redirects_without_end(self, bench):
        bench.faults.redirects_to = f"/{SOURCE}/resolve/main/{NAME}"
        assert "redirects without end" in bench.refused(ROW) and bench.files == {}

    def test_redirects_to_another_server_which_gets_the_file_asked_for_without_a_token(self, bench):
        with Server({SOURCE: {NAME: CONTENT}}) as other:
            bench.faults.redirects_to = f"{other.address}/cdn/{SOURCE}/resolve/main/{NAME}"
            bench.fetch(ROW, token="hf_secret")
        asked = [*bench.server.requests, *other.requests]
        assert bench.files == WHOLE and len(asked) >= 3
        assert [headers for *_, headers in asked if "authorization" in {*map(str.lower, headers)}] == []

    def test_disk_without_room_for_it(self, bench):
        bench.faults.lists_bytes = 10**16
        words = bench.refused(ROW)
        assert "10000000.00 GB (10,000,000,000,000,000 bytes)" in words and "are free there" in words
        assert bench.server.sent == 0 and not bench.models.exists()

    def test_asks_for_a_token(self, bench):
        bench.faults.status = 401
        words = bench.refused(ROW)
        assert (
            f"https://huggingface.co/{SOURCE}" in words
            and "set HF_TOKEN" in words
            and "No token is set" in words
        )
        assert bench.server.sent == 0 and bench.files == {} and bench.parts == []

    def test_gated_files_are_asked_for_before_any_other(self, bench):
        bench.faults.status, bench.server.gated = 403, True
        words = bench.refused(replace(PIPELINE, needs=("Model",)), ROW, token="hf_secret")
        assert "accept its terms there" in words and "has no access" in words and "hf_secret" not in words
        assert bench.server.sent == 0 and bench.files == {}
        assert "wants its terms accepted" in bench.said[0]

    def test_is_gone(self, bench):
        bench.faults.status = 404
        assert "no such file" in bench.refused(ROW)
        assert "holds no file gone.safetensors any more" in bench.refused(
            replace(ROW, file="gone.safetensors")
        )
        assert "HF_TOKEN" in bench.refused(replace(ROW, repository="owner/gone"))
        assert bench.files == {}

    def test_is_busy_for_a_while(self, bench):
        bench.faults.status = 503

        def recover(done, total):
            if bench.server.asked(f"/{NAME}"):
                bench.faults.status = None

        bench.fetch(ROW, progress=recover)
        assert bench.files == WHOLE

    def test_another_file_has_the_name(self, bench):
        path = bench.models / "loras" / NAME
        path.parent.mkdir(parents=True)
        path.write_bytes(b"mine")
        words = bench.refused(ROW)
        assert "4 bytes" in words and "300,000 bytes" in words and sha256_of(CONTENT) in words
        assert bench.files == {f"loras/{NAME}": b"mine"} and bench.said == [] and bench.server.sent == 0

    @pytest.mark.parametrize("content", [b"mine", bytes(300_000)])
    def test_another_file_gets_the_name_meanwhile(self, bench, content):
        def appear(done, total):
            if done and not (path := bench.models / "loras" / NAME).exists():
                path.write_bytes(content)

        assert "is another file" in bench.refused(ROW, progress=appear)
        assert bench.files == {f"loras/{NAME}": content}

    def test_cancel_leaves_the_part(self, bench):
        class Cancelled(BaseException):
            pass

        def cancel(done, total):
            if done > 100_000:
                raise Cancelled

        bench.faults.slow = 0.02
        with pytest.raises(Cancelled):
            bench.fetch(ROW, progress=cancel)
        (part,) = bench.parts
        assert bench.files == {} and 100_000 < len(part) < len(CONTENT) and CONTENT.startswith(part)
        bench.fetch(ROW)
        assert bench.files == WHOLE

    def test_stalls(self, bench):
        bench.faults.stalls_at, bench.faults.stalls = 100_000, 2.0
        words = bench.refused(ROW)
        assert "again and again" in words and re.search("[Tt]ime(d )?out", words)
        assert bench.files == {} and CONTENT.startswith(bench.parts[0])

    def test_cancel_does_not_wait_for_a_stalled_connection(self, bench):
        bench.faults.stalls_at, bench.faults.stalls, bench.timeout = 100_000, 3.0, 5.0
        began = []

        def cancel(done, total):
            if done > 90_000:
                began.append(time.monotonic())
            if began and time.monotonic() - began[0] > 0.1:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            bench.fetch(ROW, progress=cancel)
        assert time.monotonic() - began[0] < 0.5

    def test_sends_a_web_page(self, bench):
        bench.faults.sends, bench.faults.kind = b"<html>log in</html>", "text/html; charset=utf-8"
        assert "A web page came" in bench.refused(ROW) and bench.files == {} and bench.parts == []

    def test_lists_paths_that_climb(self, bench):
        bench.server.repositories[SOURCE] = {"../../evil.safetensors": CONTENT}
        row = replace(ROW, file="*.safetensors")
        assert "no path to use" in bench.refused(row) and bench.files == {}

    def test_answers_with_no_list(self, bench):
        bench.server.repositories["owner/pipeline"] = {}
        bench.server.commit = lambda name: "../.."
        assert "no list of the files" in bench.refused(ROW)

    def test_is_not_there(self, bench):
        words = bench.refused(ROW, address="http://localhost:9")
        assert "No connection to http://localhost:9" in words and "Nothing was fetched" in words

    def test_two_at_once(self, bench):
        bench.faults.slow = 0.01
        reports = []
        runs = [threading.Thread(target=lambda: reports.append(bench.fetch(ROW))) for _ in range(2)]
        for run in runs:
            run.start()
        for run in runs:
            run.join(20)
        assert len(reports) == 2 and bench.files == WHOLE and bench.parts == []
        assert bench.server.sent == len(CONTENT)

    def test_a_part_of_another_file_is_no_beginning_of_this_one(self, bench):
        bench.faults.breaks_at = 100_000
        bench.refused(ROW)
        now = os.urandom(300_000)
        bench.server.repositories[SOURCE][NAME] = now
        bench.faults.breaks_at = None
        bench.fetch(ROW)
        assert bench.files == {f"loras/{NAME}": now} and bench.parts == []

    def test_a_part_that_was_changed_is_found_out(self, bench):
        bench.faults.breaks_at = 100_000
        bench.refused(ROW)
        (part,) = bench.models.rglob("*.part")
        part.write_bytes(bytes(100_000))
        bench.faults.breaks_at = None
        assert "not those of the file" in bench.refused(ROW)
        assert bench.files == {} and bench.parts == []


def test_a_full_disk_keeps_what_it_took(bench, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    # room for the plan's look, none for all of the bytes: others fill the disk meanwhile
    if (
        os.name != "posix"
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)], capture_output=True
        ).returncode
    ):
        pytest.skip("mounting a small disk needs root on Linux")
    try:
        bench.models = disk

        def fill(done, total):
            if done and not (other := disk / "other").exists():
                other.write_bytes(bytes(200_000))

        words = bench.refused(ROW, progress=fill)
        assert "its disk is full" in words and "are kept for the next run" in words
        (disk / "other").unlink()
        assert bench.files == {} and CONTENT.startswith(bench.parts[0])
        bench.fetch(ROW)
        assert bench.files == WHOLE
    finally:
        subprocess.run(["umount", str(disk)], check=True)


class TestStores:
    """What lies at no hub is named with the lines to type, and never asked for."""

    def test_the_rest_is_fetched_and_the_lines_are_told(self, bench):
        words = bench.refused(STORE, ROW)
        place = bench.models / "Rooms" / "archive.tar"
        assert (
            f'curl -L -C - --create-dirs -o "{place}" https://store.example/files/Rooms/archive.tar\n'
            in words
        )
        assert f'tar -xf "{place}" -C "{place.parent}"\n' in words
        assert bench.files == WHOLE and str(bench.models / "loras" / NAME) in words

    def test_success_once_it_is_there(self, bench):
        (bench.models / "Rooms" / "archive").mkdir(parents=True)
        assert "Rooms/archive.tar: there, fetched by hand" in bench.fetch(STORE, ROW)

    def test_an_archive_that_was_not_unpacked_is_not_there(self, bench):
        (bench.models / "Rooms").mkdir(parents=True)
        (bench.models / "Rooms" / "archive.tar").write_bytes(b"tar")
        assert "tar -xf" in bench.refused(STORE, ROW)


class TestTokens:
    """Only what is sent tells: the headers of every request, and of those that would go to huggingface.co."""

    def test_a_mirror_never_gets_one(self, bench):
        bench.fetch(ROW, token="hf_secret")
        assert len(bench.server.requests) == 3
        assert "hf_secret" not in str(bench.server.requests)

    @pytest.mark.parametrize(
        "chain, got",
        [
            (["https://huggingface.co/a"], [True]),
            (["https://huggingface.co/a", "https://huggingface.co/b"], [True, True]),
            (["https://huggingface.co/a", "https://cdn.example/b"], [True, False]),
            (
                ["https://huggingface.co/a", "https://cdn.example/b", "https://huggingface.co/c"],
                [True, False, True],
            ),
            (["https://huggingface.co.example/a"], [False]),
            (["https://huggingface.co:444/a"], [False]),
            (["https://hf.co/a"], [False]),
            (["https://me@huggingface.co/a"], [False]),
            (["http://localhost/huggingface.co"], [False]),
        ],
    )
    def test_it_goes_to_huggingface_alone(self, chain, got):
        sent = []

        class Session:
            """What huggingface_hub of 1.0 and later hands out, without a wire."""

            def build_request(self, method, url, headers, timeout):
                return url, headers

            def send(self, request, **how):
                assert how == {"stream": True, "follow_redirects": False, "auth": None}
                sent.append(request)
                last = len(sent) == len(chain)
                answer = type("Answer", (), {"close": lambda self: None})()
                answer.status_code = 200 if last else 302
                answer.headers = {} if last else {"location": chain[len(sent)]}
                return answer

        Hub("https://huggingface.co", "hf_secret").open(chain[0], "owner/model", session=Session()).close()
        assert [url for url, _ in sent] == chain
        assert [headers.get("Authorization") == "Bearer hf_secret" for _, headers in sent] == got

    @pytest.mark.parametrize("place", ["http://huggingface.co/b", "http://localhost/b"])
    def test_https_never_becomes_http(self, place):
        class Session:
            def request(self, method, url, **how):
                assert how["allow_redirects"] is False and how["auth"](7) == 7
                answer = type("Answer", (), {"close": lambda self: None})()
                answer.status_code, answer.headers = 302, {"location": place}
                return answer

        with pytest.raises(DownloadError, match="which is not followed"):
            Hub("https://huggingface.co", "t").open(
                "https://huggingface.co/a", "owner/model", session=Session()
            )


@pytest.mark.parametrize(
    "variables, address, token",
    [
        ({}, "https://huggingface.co", ""),
        ({"HF_TOKEN": "hf_a", "HUGGING_FACE_HUB_TOKEN": "hf_b"}, "https://huggingface.co", "hf_a"),
        ({"HUGGING_FACE_HUB_TOKEN": " hf_b\n", "HF_TOKEN": ""}, "https://huggingface.co", "hf_b"),
        ({"HF_ENDPOINT": "https://mirror.example/"}, "https://mirror.example", ""),
    ],
)
def test_the_environment_says_where_and_with_what(variables, address, token):
    hub = Hub.of_environment(variables)
    assert (hub.address, hub.token) == (address, token)
    assert hub.is_mirror == ("mirror" in address) and (not token or token not in repr(hub))


def test_a_mirror_without_https_is_refused():
    with pytest.raises(
        DownloadError, match="HF_ENDPOINT must be an https address: got http://mirror.example"
    ):
        Hub.of_environment({"HF_ENDPOINT": "http://mirror.example"})
