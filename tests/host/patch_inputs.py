"""Legal inputs for every host node that takes a MODEL and gives one, with which it does something if it can.

Numbers that no entry here names are taken off their default. Files are tiny and written on the fly; patches of
other families are modules of the host's own classes at tiny sizes, or stand-ins where the class has no sizes.
"""

from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import save_file

from kinetograph.tests.host.workbench import run

LAYERS = "0, 1"
WINDOW = {"context_overlap": 1, "context_schedule": "standard_static", "fuse_method": "flat"}
WHOLE_RUN = {"start_percent": 0.0, "end_percent": 1.0}
NUMBERS = {
    **{f"ModelSampling{name}": {"shift": 2.5} for name in ("AuraFlow", "SD3", "StableCascade")},
    "CFGOverride": {"cfg": 1.7},
    "ContextWindowsManual": {**WINDOW, "context_length": 2, "causal_window_fix": False},
    "WanContextWindowsManual": {**WINDOW, "context_length": 5, "context_overlap": 4},
    "LTXVContextWindows": {**WINDOW, "context_length": 9, "context_overlap": 8},
    "EasyCache": {"reuse_threshold": 3.0},
    "Epsilon Scaling": {"scaling_factor": 0.8},
    "FreSca": {"freq_cutoff": 2},
    "HyperTile": {"tile_size": 32},
    "LazyCache": {"reuse_threshold": 3.0},
    "ModelComputeDtype": {"dtype": "bf16"},
    "ModelSamplingContinuousEDM": {"sampling": "v_prediction"},
    "ModelSamplingDiscrete": {"sampling": "v_prediction", "zsnr": True},
    "PatchModelAddDownscale": {"block_number": 3},
    "SelectModelDevice": {"device": "cpu"},
    "SkipLayerGuidanceDiT": {"double_layers": LAYERS, "single_layers": LAYERS},
    "SkipLayerGuidanceDiTSimple": {"double_layers": LAYERS, "single_layers": LAYERS},
    "SkipLayerGuidanceSD3": {"layers": LAYERS},
    "TomePatchModel": {"ratio": 0.5},
}
SIZE = {"width": 64, "height": 64, "length": 13, "batch_size": 1}


class Inputs:
    """Inputs for the nodes of one pair; the same for the host's MODEL and for ours."""

    def __init__(self, pair, base):
        self.pair, self.base = pair, base

    def of(self, name, rows, model, other):
        """What a node called `name` with these rows (name -> (type, options)) gets."""
        given = {}
        for key, (word, options) in rows.items():
            if key in NUMBERS.get(name, {}):
                given[key] = NUMBERS[name][key]
            elif key in SIZE:
                given[key] = SIZE[key]
            elif key in WHOLE_RUN:
                given[key] = WHOLE_RUN[key]
            elif word == "MODEL":
                given[key] = self.pair.merged_from(other) if key == "model2" else model
            elif word == "FLOAT":
                given[key] = self._number(options)
            elif word in ("INT", "BOOLEAN", "STRING"):
                given[key] = options["default"]
            elif key in ("lora_name", "hypernetwork_name"):
                given[key] = getattr(self, "_" + key)(model)
            elif key == "model_patch":
                given[key] = self._model_patch(name)
            elif word == "COMBO" or isinstance(word, list):
                given[key] = self._choice(word, options)
            else:
                given[key] = self._other(name, key, word, model)
        return given

    @staticmethod
    def _number(options):
        moved = options["default"] * 0.6 + 0.1
        return min(max(moved, options.get("min", moved)), options.get("max", moved))

    @staticmethod
    def _choice(word, options):
        choices = options["options"] if word == "COMBO" else word
        return options.get("default", choices[0])

    def _folder(self, kind):
        import folder_paths

        folder = Path(folder_paths.get_folder_paths(kind)[0])
        folder.mkdir(exist_ok=True)
        return folder

    def _lora_tensors(self, model):
        """A LoRA on every linear layer of a MODEL, in the host's plain names."""
        generator = torch.Generator().manual_seed(3)
        tensors = {}
        names = self.pair.names(model)
        for key, weight in sorted(self.pair.ours[0].model.diffusion_model.named_parameters()):
            if weight.ndim == 2 and key.endswith(".weight"):
                name = "diffusion_model." + names[key].removesuffix(".weight")
                tensors[f"{name}.lora_down.weight"] = torch.randn(2, weight.shape[1], generator=generator) * 0.1
                tensors[f"{name}.lora_up.weight"] = torch.randn(weight.shape[0], 2, generator=generator) * 0.1
        return tensors

    def _lora_name(self, model):
        name = f"tiny-patch-{self.pair.family}-{type(model.model).__name__}.safetensors"
        save_file(self._lora_tensors(model), self._folder("loras") / name)
        return name

    def _hypernetwork_name(self, model):
        """Two linear layers for keys and values of the widths that occur."""
        generator = torch.Generator().manual_seed(4)
        table = {"activation_func": "linear"}
        for width in (32, 64, 128):
            table[width] = [
                {"linear.0.weight": torch.randn(width, width, generator=generator) / width, "linear.0.bias": torch.zeros(width)}
                for _ in range(2)
            ]
        torch.save(table, self._folder("hypernetworks") / "tiny-patch.pt")
        return "tiny-patch.pt"

    def _other(self, name, key, word, model):
        bench = self.pair.bench
        if word == "CONDITIONING":
            return self.pair.told[key != "positive"]
        if word == "CLIP":
            return bench.shared("5B")[1]
        if word == "VAE" and key == "audio_vae":
            return SimpleNamespace(audio_sample_rate=16000, encode=lambda wave: torch.zeros(1, 8, 4, 16))
        if word == "VAE":
            return bench.shared("5B")[2]
        if word == "IMAGE":
            return bench.picture(13 if name == "WanInfiniteTalkToVideo" else 1)
        if word == "MASK":
            return torch.ones(1, 64, 64)
        if word == "LATENT":
            return self.pair.latent
        if word == "LATENT_OPERATION":
            from comfy_extras.nodes_latent import LatentOperationTonemapReinhard

            return run(LatentOperationTonemapReinhard, multiplier=0.5)[0]
        if word == "LORA_MODEL":
            return self._lora_tensors(model)
        if word == "AUDIO":
            return {"waveform": torch.zeros(1, 1, 1600), "sample_rate": 16000}
        if word == "AUDIO_ENCODER_OUTPUT":
            layers = [torch.zeros(1, 100, 16) for _ in range(3)]
            return {"encoded_audio_all_layers": layers, "audio_samples": 32000}
        if word == "CLIP_VISION_OUTPUT":
            return SimpleNamespace(all_hidden_states=torch.zeros(1, 24, 9, 8), penultimate_hidden_states=torch.zeros(1, 9, 8))
        if word == "COMFY_DYNAMICCOMBO_V3":
            return {key: "single_speaker"}
        raise KeyError(f"{name}.{key} is a {word}: tell here what it gets")

    def _model_patch(self, name):
        """A MODEL_PATCH: a patcher around a tiny module."""
        import comfy.model_patcher
        import comfy.ops

        place = {"device": "cpu", "dtype": torch.float32, "operations": comfy.ops.disable_weight_init}
        module = self._patch_module(name, place)
        cpu = torch.device("cpu")
        return comfy.model_patcher.ModelPatcher(module, load_device=cpu, offload_device=cpu)

    def _patch_module(self, name, place):
        if name == "QwenImageDiffsynthControlnet":
            from comfy_extras.nodes_model_patch import QwenImageBlockWiseControlNet

            return QwenImageBlockWiseControlNet(num_layers=1, dim=8, **place)
        if name == "ZImageFunControlnet":
            from comfy.ldm.lumina.controlnet import ZImage_Control

            return ZImage_Control(dim=32, n_heads=1, n_kv_heads=1, n_control_layers=1, **place)
        if name == "WanUni3CControlnetApply":
            from comfy.ldm.wan.uni3c import WanUni3CControlnet

            small = {"conv_out_dim": 32, "dim": 24, "ffn_dim": 8, "num_heads": 1, "num_layers": 1}
            return WanUni3CControlnet(**small, time_embed_dim=32, out_proj_dim=32, mid_channels=4, **place)
        if name == "WanInfiniteTalkToVideo":
            from comfy.ldm.wan.model_multitalk import MultiTalkAudioProjModel

            module = torch.nn.Module()
            sizes = {"blocks": 2, "channels": 16, "intermediate_dim": 8, "out_dim": 8, "context_tokens": 2}
            module.audio_proj = MultiTalkAudioProjModel(seq_len=5, seq_len_vf=8, **sizes, **place)
            return module
        module = torch.nn.Module()
        module.project_modules, module.cond_in_channels = torch.nn.ModuleList(), 3
        return module
