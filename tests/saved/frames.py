"""What a workflow gave: its frames, texts and files, as a small record that can be compared on any computer."""

import base64
import hashlib
import io
import json
import re
from dataclasses import dataclass, field

import av
import numpy as np
from PIL import Image

# shows the course of its training as a picture, which is no frame of a clip
TRAINER = "KinetographTrainVideoModel"
CELLS = 8  # block means to a side of a frame
LEVELS = 0.75  # of 255, between a recorded mean (itself rounded by up to 0.5) and one of another CPU
NUMBER = re.compile(r"\d+\.\d+")
NEAR = 0.11, 0.01  # absolute and relative: numbers in texts have one decimal


@dataclass
class Results:
    """By node id: 8-bit frames (f, h, w, 3), texts that the workflow shows, and facts on the files it wrote."""

    frames: dict = field(default_factory=dict)
    texts: dict = field(default_factory=dict)
    files: dict = field(default_factory=dict)

    def digest(self):
        """One hash of every frame, bit for bit; of the texts where there are no frames."""
        whole = hashlib.sha256()
        for node, frames in sorted(self.frames.items()):
            whole.update(f"{node} {frames.shape}".encode() + frames.tobytes())
        if not self.frames:
            whole.update(json.dumps(self.texts, sort_keys=True).encode())
        return whole.hexdigest()


def collect(client, prompt, result):
    """The Results of a prompt that ran."""
    found = Results()
    for node, shown in result.outputs.items():
        items = shown.get("images", [])
        if prompt[node]["class_type"] == TRAINER:
            continue
        if prompt[node]["class_type"] == "PreviewAny":
            found.texts[node] = "\n".join(shown["text"])
        elif items and items[0]["filename"].endswith(".png"):
            found.frames[node] = np.stack([read_picture(client.view(item)) for item in items])
        elif items:
            found.frames[node], facts = read_video(client.view(items[0]))
            found.files[node] = {**{key: items[0][key] for key in ("filename", "subfolder", "type")}, **facts}
    return found


def read_picture(content):
    """(h, w, 3), 8 bits."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def read_video(content):
    """Frames (f, h, w, 3), 8 bits, and what else the file holds."""
    with av.open(io.BytesIO(content)) as video:
        facts = {
            "rate": str(video.streams.video[0].average_rate),
            "sound": bool(video.streams.audio),
            "notes": sorted({"prompt", "workflow"} & {key.lower() for key in video.metadata}),
        }
        return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]), facts


def block_means(frames_fhwc):
    """(f, CELLS, CELLS, 3) means over blocks of equal size, in levels of 255."""
    f, h, w, c = frames_fhwc.shape
    blocks = frames_fhwc.reshape(f, CELLS, h // CELLS, CELLS, w // CELLS, c)
    return blocks.mean((2, 4), dtype=np.float64)


def to_record(results):
    """Results as what frames.json keeps."""
    frames = {
        node: {
            "sha256": hashlib.sha256(frames.tobytes()).hexdigest(),
            "shape": list(frames.shape),
            "means": base64.b64encode(block_means(frames).round().astype(np.uint8).tobytes()).decode(),
        }
        for node, frames in results.frames.items()
    }
    return {"frames": frames, "texts": results.texts, "files": results.files}


def differences(record, results):
    """In words, where results leave their record by more than another CPU explains."""
    found = [
        f"{what} of nodes {sorted(was)} became those of {sorted(is_)}"
        for what in ("frames", "texts", "files")
        if set(was := record[what]) != set(is_ := getattr(results, what))
    ]
    if found:
        return found
    found = [_frames_off(node, kept, results.frames[node]) for node, kept in record["frames"].items()]
    found += [_text_off(node, text, results.texts[node]) for node, text in record["texts"].items()]
    for node, facts in record["files"].items():
        if results.files[node] != facts:
            found.append(f"file of node {node}: {facts} became {results.files[node]}")
    return [words for words in found if words]


def _frames_off(node, kept, frames):
    if list(frames.shape) != kept["shape"]:
        return f"frames of node {node}: {kept['shape']} became {frames.shape}"
    off = mean_error(kept, frames)
    return f"frames of node {node}: {off:.1f} levels off" if off > LEVELS else None


def mean_error(kept, frames):
    """The largest difference of a block's mean from its record, in levels."""
    means = block_means(frames)
    recorded = np.frombuffer(base64.b64decode(kept["means"]), np.uint8).reshape(means.shape)
    return float(np.abs(means - recorded).max())


def _text_off(node, then, now):
    """Every line, or every entry of a JSON object, must still be there; more may have come."""
    if then.startswith("{"):
        lost = {key: value for key, value in json.loads(then).items() if json.loads(now).get(key) != value}
    else:
        left = iter(now.splitlines())
        lost = [line for line in then.splitlines() if not any(_says_same(line, other) for other in left)]
    return f"text of node {node} lost {lost}" if lost else None


def _says_same(then, now):
    """Whether two lines have the same words, and decimal numbers that differ by rounding alone."""
    if NUMBER.sub("#", then) != NUMBER.sub("#", now):
        return False
    pairs = zip(NUMBER.findall(then), NUMBER.findall(now), strict=True)
    return all(abs(float(a) - float(b)) <= NEAR[0] + NEAR[1] * float(a) for a, b in pairs)
