"""The steps by name, and in which order they start."""

Step = tuple[str, str, tuple]  # module here, function, arguments after the report

MODES = {  # how the host keeps weights: its arguments
    "cpu": ("--cpu",),
    "dynamic": (),
    "dynamic fp32 vae": ("--fp32-vae",),
    "static fp32 vae": ("--disable-dynamic-vram", "--fp32-vae"),
    "lowvram": ("--disable-dynamic-vram", "--lowvram"),
    "novram": ("--novram", "--fp32-vae"),
}
PICTURES: dict[str, Step] = {f"pictures {mode}": ("pictures", "make", (mode,)) for mode in MODES}
NETWORKS: dict[str, Step] = {
    "ceilings": ("ceilings", "run", ()),
    "svd": ("networks", "unets", ()),
    "exvideo": ("networks", "exvideo", ()),
    "2b": ("networks", "transformer", ("2B",)),
    "5b": ("networks", "transformer", ("5B",)),
}
COMPILING: dict[str, Step] = {
    "compile svd": ("compiling", "unet", ("ours",)),
    "compile 2b": ("compiling", "transformer", ("ours",)),
    "compile svd, diffusers": ("compiling", "unet", ("diffusers",)),
    "compile 2b, diffusers": ("compiling", "transformer", ("diffusers",)),
}
DECODERS: dict[str, Step] = {
    "1.5-5b": ("networks", "transformer", ("1.5-5B",)),
    "svd vae": ("decoders", "svd", ()),
    "cogvideox vae": ("decoders", "cogvideox", ()),
}
LAYOUTS: dict[str, Step] = {
    "layers": ("layouts", "layers", ()),
    "slabs": ("slabs", "run", ()),
}
TRAININGS: dict[str, Step] = {
    "training motion": ("trainings", "run", ("animatediff", "v2")),
    "training svd": ("trainings", "run", ("svd", "lora")),
    "training 2b": ("trainings", "run", ("cogvideox", "2B")),
    "training 5b": ("trainings", "run", ("cogvideox", "5B")),
    "training fun": ("trainings", "run", ("cogvideox", "Fun-5B-InP")),
    "training easyanimate": ("trainings", "run", ("pixart", "512")),
    "training exvideo": ("trainings", "run", ("svd", "exvideo")),
    "training, peers": ("trainings", "beside_peers", ()),
}
FILES: dict[str, Step] = {"files": ("checkpoints", "write_all", ())}
CARDS: dict[str, Step] = {
    "svd on 8 GiB": ("cards", "svd", (8.0, False)),
    "exvideo on 8 GiB": ("cards", "svd", (8.0, True)),
    "5b fp8": ("cards", "cogvideox", (None, "fp8_e4m3fn")),
    "5b bf16": ("cards", "cogvideox", (None, "auto")),
    "svd": ("cards", "svd", (None, False)),
    "5b bf16 on 8 GiB": ("cards", "cogvideox", (8.0, "auto")),
    "5b fp8 on 8 GiB": ("cards", "cogvideox", (8.0, "fp8_e4m3fn")),
}
CARDS = {f"card: {name}": step for name, step in CARDS.items()}
COMPARISON: dict[str, Step] = {"comparison": ("pictures", "compare", ())}
STEPS: dict[str, Step] = {
    **PICTURES,
    **NETWORKS,
    **DECODERS,
    **FILES,
    **CARDS,
    **COMPARISON,
    **COMPILING,
    **LAYOUTS,
    **TRAININGS,
}
# Steps of a phase start together; the next phase begins when all have ended. Small cards are for nobody beside.
PHASES = (
    (*PICTURES, *NETWORKS, *DECODERS, *FILES),
    (*COMPARISON, *CARDS),
    tuple(LAYOUTS),
    tuple(COMPILING),
    tuple(TRAININGS),
)
# Seconds after which a step is ended, waiting for others included; what it has found is written by then.
LIMITS = {"layers": 100.0, "slabs": 180.0, **dict.fromkeys(COMPILING, 360.0)}
LIMIT = 600.0
