"""A stand-in for ffmpeg that misbehaves as told: a shell script that IMAGEIO_FFMPEG_EXE names (POSIX only)."""

import os
import subprocess

import imageio_ffmpeg

NAP = f"sleep {60 + os.getpid() / 1e7:.7f}"  # of this process alone, so that it can be found again
WORKS = 'exec "$real" "$@"'
HANGS = f"exec {NAP}"
HANGS_AT_THE_END = f"cat > /dev/null; exec {NAP}"
# The shell waits for a child, which is the one that has the pipes.
HANGS_IN_A_CHILD = f"{NAP}; exit 0"


class StandIn:
    """Runs one piece of shell when a format is tried out, and another when a clip is encoded."""

    def __init__(self, folder):
        self.folder, self.script = folder, folder / "ffmpeg"
        real = imageio_ffmpeg.get_ffmpeg_exe()
        self.script.write_text(
            f"""#!/bin/bash
            real={real}
            case "$*" in
                *"-f null -"*) echo "$*" >> {folder}/trials; . {folder}/trial;;
                *) . {folder}/encode;;
            esac
            """
        )
        self.script.chmod(0o755)
        self.behave()

    def behave(self, encode=WORKS, trial=WORKS):
        (self.folder / "encode").write_text(encode)
        (self.folder / "trial").write_text(trial)

    @property
    def trials(self):
        """How often a format was tried out."""
        log = self.folder / "trials"
        return len(log.read_text().splitlines()) if log.exists() else 0


def nappers():
    """Process ids of whatever still takes the nap."""
    return subprocess.run(["pgrep", "-f", f"^{NAP}$"], capture_output=True, text=True).stdout.split()
