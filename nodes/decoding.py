"""Latents back to frames, a few at a time."""

from collections.abc import Iterator
from datetime import datetime
from functools import partial
from itertools import chain

import torch
from torch import Tensor

from ..modules.decoding.chunks import check_finite, decode_in_chunks, drop_first, with_fallbacks
from ..modules.decoding.seams import SeamMeter
from ..modules.videofile.errors import in_our_words
from ..modules.videofile.metadata import read_notes
from ..modules.videofile.naming import fill_prefix
from ..modules.videofile.probe import usable_formats
from ..modules.videofile.request import check_request, read_audio, read_encoding, request_problem
from ..modules.videofile.writer import Job, write_clip
from .host import compat, files, media, progress, results, values
from .host.api import io
from .host.checks import checked, guarded, still_to_come

# Exact ways to decode with a causal VAE, leaner and slower from one to the next.
LADDER = ({}, {"cache_device": "cpu"})


def frames_of(
    vae, clips: values.Clips, chunk: int, overlap: int, meter: SeamMeter | None = None
) -> Iterator[Tensor]:
    """Checked frames (f, h, w, 3) of every clip of a LATENT, moving the node's progress bar.

    A causal VAE of this pack streams exactly. VAEs with frames on the batch axis, ours or the host's, are decoded
    `chunk` frames at a time (0: what memory allows), watched by `meter`; others whole.
    """
    samples = clips.samples
    if not bool(samples.isfinite().all()):
        raise ValueError("The latent holds a NaN or infinity: sampling went wrong before decoding.")
    if values.is_video_vae(vae):
        stream = chain.from_iterable(_causal(vae, clip[None], clips.num_frames) for clip in samples)
    elif samples.ndim == 4:
        chunk = chunk or values.affordable_frames(vae, samples)
        apart = samples.split(clips.num_frames)  # a temporal decoder must not mix two clips
        stream = chain.from_iterable(_chunked(vae, clip, chunk, overlap, meter) for clip in apart)
    else:
        stream = iter(vae.decode(samples).unbind())
    stage = f"Decoding in {str(vae.vae_dtype).removeprefix('torch.')}"
    return _with_progress(check_finite(stream, stage), clips.total)


def _chunked(vae, clip: Tensor, chunk: int, overlap: int, meter: SeamMeter | None) -> Iterator[Tensor]:
    """One clip in chunks, its seams measured when somebody wants to know."""
    heard = None if meter is None else meter.add_chunk
    stream = decode_in_chunks(vae.decode, clip, chunk, overlap, compat.is_out_of_memory, heard)
    return stream if meter is None else meter.watch(stream)


def _causal(vae, clip: Tensor, num_frames: int) -> Iterator[Tensor]:
    """One clip, in the first exact way that memory allows, cut to the frames that it stands for.

    An even number of latents decodes to three frames more, all from the first latent (spec of the CogVideoX
    VAE: its chunks): those go, so that the frame that stands alone in an odd clip stands alone here too.
    """
    streams = [partial(vae.frame_stream, clip, **way) for way in LADDER]
    stream = with_fallbacks(streams, compat.is_out_of_memory)
    return drop_first(stream, vae.decoded_frames(clip.shape[2]) - num_frames)


def _with_progress(stream: Iterator[Tensor], total: int) -> Iterator[Tensor]:
    bar = progress.steps(total)
    for frames in stream:
        bar.advance(frames.shape[0])
        yield frames


class VAEDecodeChunked(io.ComfyNode):
    """Decodes a clip with memory that does not grow with its length."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographVAEDecodeChunked",
            display_name="VAE Decode (Chunked)",
            category="kinetograph/video",
            description="Decode a long clip a few latent frames at a time: exactly where the VAE is causal, with "
            "blended seams where it is not. When memory runs out it goes on in smaller pieces.",
            search_aliases=["vae decode video", "decode tiled temporal"],
            inputs=[
                io.Vae.Input(
                    "vae", tooltip="Video VAE of the model's family, or any VAE with frames as batch."
                ),
                io.Latent.Input("latent", tooltip="Latent clip to decode."),
                io.Int.Input(
                    "chunk",
                    default=0,
                    min=0,
                    max=512,
                    tooltip="Frames decoded at once by VAEs that are not causal; 0: as many as memory allows. A "
                    "causal VAE such as CogVideoX's always takes its own two latents.",
                ),
                io.Int.Input(
                    "overlap",
                    default=2,
                    min=0,
                    max=64,
                    tooltip="Frames blended between chunks of a VAE that is not causal.",
                ),
            ],
            outputs=[
                io.Image.Output("IMAGE", tooltip="All frames, in order."),
                io.String.Output(
                    "report",
                    tooltip="How visible the seams between chunks are: the largest jump at a border beside the "
                    "median jump inside. Also what was assumed about the number of frames.",
                ),
            ],
        )

    @classmethod
    @checked
    def execute(cls, vae, latent, chunk, overlap) -> io.NodeOutput:
        clips = values.read_clips(latent, vae, "VAE Decode (Chunked)")
        meter = SeamMeter()
        frames = torch.cat(list(frames_of(vae, clips, chunk, overlap, meter)))
        return io.NodeOutput(frames, " ".join(filter(None, (clips.note, meter.report().text()))))


class VAEDecodeToVideo(io.ComfyNode):
    """Decodes straight into the encoder: however long the clip, a few frames are in memory."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographVAEDecodeToVideo",
            display_name="VAE Decode To Video",
            category="kinetograph/video",
            description="Decode a clip and write it to a file as it comes; memory does not grow with its length.",
            search_aliases=["stream decode", "long video", "save video"],
            inputs=[
                io.Vae.Input(
                    "vae",
                    lazy=True,
                    tooltip="Video VAE of the model's family, or any VAE with frames as batch.",
                ),
                io.Latent.Input("latent", lazy=True, tooltip="One latent clip."),
                *media.clip_inputs(usable_formats()),
                *media.file_inputs(),
            ],
            outputs=[
                *media.file_outputs(),
                io.String.Output(
                    "report", tooltip="What was assumed about the number of frames, if anything."
                ),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, frame_rate=None, filename_prefix=None, *, format=None) -> bool | str:  # noqa: A002
        """Refuse what cannot be encoded or named when the prompt is posted."""
        return request_problem(format, frame_rate, filename_prefix, files.output_directory()) or True

    @classmethod
    def fingerprint_inputs(cls, **_) -> int:
        """Write the file again when the one that was reported is gone."""
        return results.times_gone()

    @classmethod
    def check_lazy_status(cls, **inputs) -> list[str]:
        """Look at name, format and sound before anything is computed for the clip."""
        wanted = still_to_come(cls, inputs, ("vae", "latent"))
        chosen, sound = inputs["format"]["format"][0], read_audio(inputs.get("audio"))
        root = files.output_directory()
        check_request(chosen, sound, inputs["filename_prefix"], cls.hidden.prompt, root)
        return wanted

    @classmethod
    @checked
    def execute(
        cls, vae, latent, frame_rate, loop_count, filename_prefix, format, save_output, save_metadata,
        trim_to_audio, audio=None,
    ) -> io.NodeOutput:  # fmt: skip
        encoding = read_encoding(format, frame_rate, loop_count)
        clips = values.read_clips(latent, vae, "VAE Decode To Video")
        width, height = values.pixel_size(vae, clips.samples)
        root = files.result_root(not save_output)
        prefix = fill_prefix(filename_prefix, cls.hidden.prompt, datetime.now(), root)
        with in_our_words():
            place = files.save_path(prefix, width, height, not save_output)
        folder, name, counter, subfolder = place
        notes = read_notes(*media.workflow_of(cls, save_metadata))
        job = Job(
            folder, name, encoding, counter, read_audio(audio), trim_to_audio, notes,
            check=progress.check_interrupted,
        )  # fmt: skip
        writer = write_clip(job, frames_of(vae, clips, chunk=0, overlap=2))
        results.remember(writer.path)
        said = [note for note in (clips.note, *writer.said) if note]
        saved = media.saved_video(
            writer.path, subfolder, not save_output, encoding.format.name, frame_rate, said
        )
        return io.NodeOutput(*saved.args, clips.note, ui=saved.ui)


NODES = [VAEDecodeChunked, VAEDecodeToVideo]
