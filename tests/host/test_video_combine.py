"""VideoCombine on the real host: right files, early refusals, nothing left behind."""
