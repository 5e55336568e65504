"""Where a campaign fights: a ComfyUI on a base directory with tiny checkpoints, its ffmpeg under our hand."""

import os
import sys
import uuid
from pathlib import Path
from unittest import mock

import imageio_ffmpeg
from safetensors.torch import save_file

from kinetograph.tests import motion_files, packs, sparse_files, tiny, tiny_pixart, tiny_svd
from kinetograph.tests.saved import loras
from kinetograph.tools.server import Server

MARK = "KINETOGRAPH_CAMPAIGN"  # in the environment of a server and of all it starts
STALLING = """#!/bin/bash
case "$*" in *.kinetograph-*) mode=$(cat "{mode}") ;; *) mode=ok ;; esac
case $mode in
  deaf) exec sleep 600 ;;
  endless) cat > /dev/null; exec sleep 600 ;;
  shell) "{real}" "$@"; exit $? ;;
  heir) sleep 600 & exec "{real}" "$@" ;;
  waiting) while [ "$(cat "{mode}")" = waiting ]; do sleep 0.1; done; exec "{real}" "$@" ;;
  *) exec "{real}" "$@" ;;
esac
"""
STALLS = ("deaf", "endless", "shell", "heir")


class Lost(AssertionError):
    """A borrowed server did not survive, and nobody here may start another."""


class Ground:
    """A base directory and the server on it: started when first asked for, and again after it ended.

    A server that is lent is never started, stopped or harmed here, and its ffmpeg is its own.
    """

    def __init__(self, host, base, lent=None, output=None):
        self.host, self.base, self.lent = host, Path(base), lent
        self.output = Path(output or self.base / "output")
        self.mark = uuid.uuid4().hex
        self.num_starts = 0
        self._server = lent
        self._mode = self.base / "ffmpeg-mode"

    @property
    def server(self):
        if self._server is None or not self._server.is_running():
            if self.lent:
                raise Lost(f"The server did not survive; its last words:\n{self.lent.tail()}")
            self._server = self._start()
        return self._server

    @property
    def client(self):
        return self.server.client

    def _start(self):
        self.base.mkdir(parents=True, exist_ok=True)
        self.output.mkdir(parents=True, exist_ok=True)
        environment = {"IMAGEIO_FFMPEG_EXE": str(self._write_encoder()), MARK: self.mark}
        with mock.patch.dict(os.environ, environment):
            arguments = ("--output-directory", str(self.output), *packs.link(self.base))
            server = Server(Path(sys.executable), self.host, self.base, arguments=arguments)
            self.num_starts += 1
            return server.__enter__()

    def _write_encoder(self):
        """A program that is ffmpeg until `stall` says otherwise."""
        program = self.base / "ffmpeg"
        self._mode.write_text("ok")
        with mock.patch.dict(os.environ):
            os.environ.pop("IMAGEIO_FFMPEG_EXE", None)
            program.write_text(STALLING.format(mode=self._mode, real=imageio_ffmpeg.get_ffmpeg_exe()))
        program.chmod(0o755)
        return program

    def stall(self, mode="ok"):
        """Choose how ffmpeg behaves on a clip from now on; a probe of it always works."""
        self._mode.write_text(mode)

    def restart(self):
        """End the server, however it is, and start one again."""
        if self.lent:
            raise Lost(f"The server is no more of use; its last words:\n{self.lent.tail()}")
        self.kill()
        return self.server

    def kill(self):
        """End the server as a power cut does."""
        if self._server is not None and not self.lent:
            self._server.process.kill()
            self._server.process.wait()

    def close(self):
        if self._server is not None and not self.lent:
            self._server.stop()


def write_models(base):
    """The tiny checkpoints that campaigns name, where they are missing below a base directory; returns it."""
    models = base / "models"
    if not (models / "CogVideo" / "tiny-5B").exists():
        tiny.write_pipeline(models / "CogVideo" / "tiny-5B", "5B")
    for name, write in (("tiny-svd", tiny_svd.write_file), ("tiny-exvideo", tiny_svd.write_exvideo)):
        if not (path := models / "SVD" / f"{name}.safetensors").exists():
            write(path)
    motion_files.write_all(models / "animatediff_models")
    if not (models / "Diffusion_Transformer" / "tiny-pixart").exists():
        tiny_pixart.write_all(models)
    if not (path := models / "Personalized_Model" / "easyanimate_portrait_lora.safetensors").exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        tiny_pixart.write_lora(path)
    if not (path := models / "controlnet" / "tiny-pocket-sparsectrl.safetensors").exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(sparse_files.of_pocket(), path)
    if not (path := models / "loras" / "tiny.safetensors").exists():
        path.parent.mkdir(exist_ok=True)
        save_file(loras.network(models / "CogVideo" / "tiny-5B"), path)
    return base
