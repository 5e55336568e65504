"""The course of the learning rate, and of the norm that gradients are cut to. Updates count from 1."""

import math

from .recipe import Steps

# parts of the peak that "hold" and "cosine" end at
LEAST_HOLD, LEAST_COSINE = 0.02, 0.01
# part of the way that "hold" stays at its peak
HOLD = 0.5
# CogVideoX-Fun's rule (aigc-apps/CogVideoX-Fun, scripts/train.py): how much wider the limit begins, how many updates
# it narrows, from which multiple on a norm is an accident, and how much of that is taken off at most
WIDE, NARROWING, ACCIDENT, MOST_CUT = 5.0, 1000, 5.0, 10.0


def rate(number: int, steps: Steps) -> float:
    """Share of `steps.lr` at an update: a rise over `warm_up` updates, then the schedule.

    "constant" stays; "hold" falls evenly from the middle on; "cosine" falls from the end of the rise on.
    """
    done, warm_up = number - 1, max(1, steps.warm_up)
    rise = min(1.0, number / warm_up)
    if steps.schedule == "hold":
        return min(rise, max(LEAST_HOLD, (1 - done / steps.total) / (1 - HOLD)))
    if steps.schedule == "cosine" and done >= steps.warm_up:
        part = min(1.0, (done - steps.warm_up) / max(1, steps.total - steps.warm_up))
        return max(LEAST_COSINE, 0.5 + 0.5 * math.cos(math.pi * part))
    return rise


def clip_norm(number: int, norm: float, steps: Steps) -> float:
    """What gradients of a norm are cut to at an update, where they are larger; 0: they stay.

    By Fun's rule the limit begins five times as wide and narrows over 1000 updates; after that a norm above five limits
    is cut below the limit, by as much as it is above, at most tenfold.
    """
    if steps.clip_rule == "constant" or not steps.clip:
        return steps.clip
    done = number - 1
    limit = steps.clip * (WIDE + (1 - WIDE) * min(1.0, done / NARROWING))
    if done > NARROWING and norm > ACCIDENT * limit:
        return limit / min(norm / limit, MOST_CUT)
    return limit
