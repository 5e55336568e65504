"""Models in context windows, and the same put together by hand from runs on parts of a clip."""

import copy

import torch

from kinetograph.tests.host.workbench import run

STATIC = {"schedule": "standard_static", "overlap": 4, "fuse_method": "flat"}
LOOP = {
    "schedule": "looped_uniform",
    "overlap": 4,
    "stride": 1,
    "closed_loop": True,
    "fuse_method": "pyramid",
}


def windows(bench, model, length, prompts=(), freenoise=False, **schedule):
    """The MODEL of Context Windows; `schedule` changes the parts of STATIC."""
    named = {f"prompt{number}": prompt for number, prompt in enumerate(prompts)}
    chosen = {"length": length, "freenoise": freenoise, "schedule": {**STATIC, **schedule}, "prompts": named}
    return run(bench.ours["ContextWindows"], model=model, **chosen)[0]


def draw(*shape, seed=7):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Watched:
    """What reaches the network of a MODEL of any kind, call by call. The MODEL is the caller's own: a clone of a clone
    that dies would have the host look for leaks."""

    def __init__(self, model):
        from comfy.patcher_extension import WrappersMP

        self.calls, self.model = [], model
        model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test_watched", self)

    def __call__(self, executor, x, timestep, context, *args, **conds):
        options = conds.get("transformer_options") or next(
            arg for arg in reversed(args) if isinstance(arg, dict)
        )
        window = options.get("context_window")
        self.calls.append(
            {
                "window": window,
                "frames": None if window is None else list(window.index_list),
                "x": x.clone(),
                "context": context.clone(),
                "entries": list(options["cond_or_uncond"]),
                **conds,
            }
        )
        return executor(x, timestep, context, *args, **conds)

    @property
    def windows(self):
        """Frames of the windows in the order of the calls, a window of two passes once."""
        each = {id(call["window"]): call["frames"] for call in self.calls}
        return list(each.values())


def predict(model, noise, **conds):
    """(cond, uncond): what a MODEL predicts at the first of two steps from noise alone."""
    import comfy.samplers

    class Guider(comfy.samplers.CFGGuider):
        def predict_noise(self, x, timestep, model_options=None, seed=None):
            sides = [self.conds["positive"], self.conds["negative"]]
            self.both = comfy.samplers.calc_cond_batch(self.inner_model, sides, x, timestep, model_options)
            return self.both[0]

    guider, silent = Guider(model), torch.zeros_like(noise)
    guider.set_conds(conds["positive"], conds["negative"])
    schedule = comfy.samplers.KSampler(
        model, 2, model.load_device, "euler", "simple", 1.0, model.model_options
    )
    sampler = comfy.samplers.sampler_object("euler")
    with torch.inference_mode():
        guider.sample(noise, silent, sampler, schedule.sigmas[:2], disable_pbar=True, seed=7)
    return torch.stack(guider.both)


def by_hand(model, noise, frames, weights, axis, conds):
    """The weighted mean of runs of the plain MODEL on parts of the noise; `conds(window)` are the conditionings of each."""
    total, count = 0.0, 0.0
    for window, weight in zip(frames, weights, strict=True):
        part = predict(model, noise.index_select(axis, torch.tensor(window)), **conds(window))
        shape = [-1 if at == axis + 1 else 1 for at in range(part.ndim)]
        scale = torch.tensor(weight).view(shape)
        if not isinstance(total, torch.Tensor):
            total = torch.zeros(2, *noise.shape)
            count = torch.zeros([noise.shape[axis] if at == axis + 1 else 1 for at in range(part.ndim)])
        total.index_add_(axis + 1, torch.tensor(window), part * scale)
        count.index_add_(axis + 1, torch.tensor(window), scale)
    return total / count


def cut(conditioning, **axes):
    """A function of a window: the CONDITIONING with these of its values cut to it; "tokens" are the tokens."""

    def at(window):
        entries = []
        for tokens, values in conditioning:
            values = copy.copy(values)
            for name, axis in axes.items():
                if name == "tokens":
                    tokens = tokens.index_select(axis, torch.tensor(window))
                elif name in values:
                    values[name] = values[name].index_select(axis, torch.tensor(window))
            values.pop("num_frames", None)
            entries.append([tokens, values])
        return entries

    return at
