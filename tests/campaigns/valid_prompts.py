"""Prompts that are right, made from what the server says about our nodes in /object_info."""

import copy
from dataclasses import dataclass

from kinetograph.tests.host.graphs import node

DYNAMIC = "COMFY_DYNAMICCOMBO_V3"
AUTOGROW = "COMFY_AUTOGROW_V3"
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", DYNAMIC)
SMALL = {"width": 64, "height": 64, "batch_size": 1}
COG = {
    "model": "CogVideo/tiny-5B",
    "text_encoder": "from the model's folder",
    "vae": "from the model's folder",
}
SVD = {
    "model": "SVD/tiny-svd.safetensors",
    "image_encoder": "from the checkpoint",
    "vae": "from the checkpoint",
}
PIXART = {
    "model": "Diffusion_Transformer/tiny-pixart",
    "text_encoder": "from the model's folder",
    "vae": "from the model's folder",
    "personalized": "Motion_Module/tiny-portrait.safetensors",
}
PICTURES = {
    **{"folder": "kinetograph_chalk", "format": "captions", "width": 64, "height": 64, "frames": 1},
    **{"pace": "every n-th frame", "pace.stride": 1, "sizes": "one size", "sizes.crop": "centre"},
    **{"random_frames": "none", "camera": "none", "flip": False, "masks": "none", "further": "usual"},
}
BRIEF = {
    **{"part": "lora", "part.lr": 1e-3, "part.rank": 2, "part.alpha": 2.0, "part.layers": "attention"},
    **{
        "part.dialect": "kohya",
        "name": "brief",
        "steps": 1,
        "seed": 0,
        "learning": "adamw",
        "learning.batch": 1,
    },
    **{
        "learning.weight_decay": 0.0,
        "learning.schedule": "constant",
        "learning.warm_up": 0,
        "learning.clip": 1.0,
    },
    **{"learning.ema": 0.0, "learning.loss": "published", "learning.motion_sub": 0.0},
    **{"machine": "auto", "machine.save_every": 500, "samples": "off"},
}
TRAINED = {"data": ["data", 0], "clip": ["cog", 1]}
# What gives a value of each type: nodes of the host, or of ours with settings that cost little.
SOURCES = {
    "cog": node("KinetographCogVideoXLoader", **COG, weight_dtype="auto"),
    "svd": node("KinetographSVDLoader", **SVD, weight_dtype="auto"),
    "sd": node("TinySD15", seed=0),
    "cog_latent": node("KinetographVideoLatent", family="cogvideox", num_frames=9, **SMALL),
    "svd_latent": node("KinetographVideoLatent", family="svd", num_frames=3, **SMALL),
    "text": node("CLIPTextEncode", clip=["cog", 1], text="a red circle"),
    "frame": node("EmptyImage", width=64, height=64, batch_size=1, color=0x336699),
    "frames": node("EmptyImage", width=64, height=64, batch_size=9, color=0x336699),
    "mask": node("SolidMask", value=1.0, width=64, height=64),
    "film": node("CreateVideo", images=["frames", 0], fps=8.0),
    "data": node("KinetographTrainingData", **PICTURES),
    "words": node("PrimitiveString", value="a red circle"),
    "trained": node("KinetographTrainVideoModel", model=["cog", 0], vae=["cog", 2], **TRAINED, **BRIEF),
    "sound": node("EmptyAudio", duration=1.0, sample_rate=44100, channels=2),
}
LINKS = {
    "MODEL": ["cog", 0], "CLIP": ["cog", 1], "VAE": ["cog", 2], "CONDITIONING": ["text", 0], "IMAGE": ["frames", 0],
    "LATENT": ["cog_latent", 0], "CLIP_VISION": ["svd", 1], "AUDIO": ["sound", 0], "VIDEO": ["film", 0],
    "IMAGE,VIDEO": ["frames", 0], "MASK": ["mask", 0],
}  # fmt: skip
OF_SVD = {"MODEL": ["svd", 0], "VAE": ["svd", 2], "LATENT": ["svd_latent", 0], "IMAGE": ["frame", 0]}
OWN_LINKS = {  # where the family of LINKS does not fit
    "KinetographSVDConditioning": OF_SVD,
    "KinetographPinFrames": OF_SVD,
    "KinetographExVideoPatch": OF_SVD,
    "KinetographMotionModuleApply": {"MODEL": ["sd", 0]},
    "KinetographVideoContinue": OF_SVD,
    "KinetographImageToVideoConditioning": {"IMAGE": ["frame", 0]},
}
SETTINGS = {  # instead of defaults that cost much or need a file, and optional inputs without which nothing runs
    "KinetographCogVideoXLoader": COG,
    "KinetographSVDLoader": SVD,
    "KinetographPixArtLoader": PIXART,
    "KinetographVideoLatent": {**SMALL, "family": "cogvideox", "num_frames": 9},
    "KinetographFitVideo": {"width": 64, "height": 64, "num_frames": 9, "fit": "crop", "start": 0.0},
    "KinetographVideoContinue": {
        "start_images": ["frame", 0],
        "clip_vision": ["svd", 1],
        "plan.segments": 2,
        "sampling.steps": 1,
        "sampling.sampler_name": "euler",
        "sampling.scheduler": "edm",
    },
    "KinetographInpaintConditioning": {
        "positive": ["text", 0],
        "negative": ["text", 0],
        "video": ["frames", 0],
        "mask": ["mask", 0],
        "mode": "mask resized",
    },
    "KinetographVideoSampler": {"steps": 1, "preview": False},
    "KinetographExVideoPatch": {"exvideo": "SVD/tiny-exvideo.safetensors"},
    "KinetographMotionModuleApply": {"motion_module": "animatediff_models/tiny-v2.safetensors"},
    "KinetographSparseCtrlLoader": {"sparsectrl": "tiny-pocket-sparsectrl.safetensors"},
    "KinetographModelDoctor": {"model": "CogVideo/tiny-5B"},
    "KinetographTrainingData": PICTURES,
    "KinetographSaveTrainingData": {"captions": ["words", 0], "name": "campaign"},
    "KinetographTrainVideoModel": {**TRAINED, **BRIEF},
    "KinetographSaveTrained": {"run": ["trained", 3]},
    # it is there, and lies at no hub: nothing is asked for
    "KinetographModelDownload": {"release": "EasyAnimate portrait LoRA", "with_needs": False},
    # a file for the MODEL that is linked; others in the list are for other ones
    "KinetographLoRAStack": {f"loras.lora_{number}": "tiny.safetensors" for number in range(1, 9)},
}


@dataclass(frozen=True)
class Field:
    """One input of a node: its name in a prompt, its type, and what bounds it."""

    name: str
    type: str
    options: dict
    required: bool

    @property
    def choices(self):
        """The words of a list, or the keys of a DynamicCombo."""
        listed = self.options.get("options", ())
        return [entry["key"] if isinstance(entry, dict) else entry for entry in listed]

    def inner(self, key):
        """The fields behind one key of a DynamicCombo, under the names that prompts use."""
        (found,) = [entry for entry in self.options["options"] if entry["key"] == key]
        return [field.under(self.name) for field in fields_of(found["inputs"])]

    @property
    def sockets(self):
        """The fields that an Autogrow may grow, under the names that prompts use."""
        template = self.options["template"]
        (grown,) = fields_of(template["input"])
        names = [f"{self.name}.{template['prefix']}{i}" for i in range(template["max"])]
        return [Field(name, grown.type, grown.options, False) for name in names]

    def under(self, name):
        return Field(f"{name}.{self.name}", self.type, self.options, self.required)

    @property
    def default(self):
        if "default" in self.options:
            return self.options["default"]
        # a list of files may be empty
        empty = {"INT": 0, "FLOAT": 0.0, "STRING": "", "BOOLEAN": False, "COMBO": None}
        return self.choices[0] if self.choices else empty[self.type]


def fields_of(inputs):
    """Every field of an `input` of /object_info; a list in place of a type is a COMBO."""
    found = []
    for group in ("required", "optional"):
        for name, (told, *rest) in (inputs.get(group) or {}).items():
            options = dict(rest[0]) if rest else {}
            if isinstance(told, list):
                told, options["options"] = "COMBO", told
            found.append(Field(name, told, options, group == "required"))
    return found


class Prompts:
    """Builds a prompt around any node of this pack."""

    def __init__(self, client):
        told = client.get_json("/object_info")
        self.told = {kind: about for kind, about in told.items() if kind.startswith("Kinetograph")}
        self.fields = {kind: fields_of(about["input"]) for kind, about in self.told.items()}
        self.kinds = [kind for kind in self.told if self._is_known(kind)]

    def _is_known(self, kind):
        return all(field.type in (*WIDGETS, *LINKS) or not field.required for field in self.fields[kind])

    def inputs(self, kind, rng):
        """(values, fields in use) of a node that should work; what changes no cost is drawn at random."""
        values, used, settings = {}, [], SETTINGS.get(kind, {})
        for field in self.fields[kind]:
            lent = field.type in LINKS and (field.required or field.name in settings)
            if field.type not in WIDGETS and not lent:
                continue
            used.append(field)
            values[field.name] = settings.get(field.name, self._value(kind, field, rng))
            if field.type == DYNAMIC:
                inner = field.inner(values[field.name])
                values |= {one.name: settings.get(one.name, self._value(kind, one, rng)) for one in inner}
                used += inner
        return values, used

    def _value(self, kind, field, rng):
        if field.type in LINKS:
            return list({**LINKS, **OWN_LINKS.get(kind, {})}[field.type])
        if field.type == DYNAMIC or (field.type == "COMBO" and "." in field.name):
            return rng.choice(field.choices)
        return rng.random() < 0.5 if field.type == "BOOLEAN" else field.default

    def around(self, kind, values):
        """A whole prompt: the node, all that it is linked to, and something that shows its result."""
        prompt = {"node": node(kind, **values)}
        if not self.told[kind]["output_node"]:
            prompt["shown"] = node("PreviewAny", source=["node", 0])
        return prompt


def complete(prompt):
    """The prompt with every source that its links lead to."""
    waiting = [value for part in prompt.values() for value in part["inputs"].values()]
    for value in waiting:
        if isinstance(value, list) and value and isinstance(value[0], str) and value[0] in SOURCES:
            if value[0] not in prompt:
                prompt[value[0]] = copy.deepcopy(SOURCES[value[0]])
                waiting.extend(prompt[value[0]]["inputs"].values())
    return prompt
