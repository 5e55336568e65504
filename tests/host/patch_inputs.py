"""Legal inputs for every host node that takes a MODEL and gives one, with which it does something if it can.

Numbers that no entry here names are taken off their default; ratios of a merge are all different. Files are tiny and
written on the fly; patches of other families are modules of the host's own classes at tiny sizes, or stand-ins where the
class has no sizes.
"""

from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import save_file

from kinetograph.tests.host.patch_bench import Partial
from kinetograph.tests.host.workbench import run

LAYERS = "0, 1"
WINDOW = {"context_overlap": 0, "context_schedule": "standard_static", "fuse_method": "flat"}
VALUES = {
    "CFGOverride": {"cfg": 1.7},
    "ContextWindowsManual": {**WINDOW, "causal_window_fix": False},
    "EasyCache": {"reuse_threshold": 3.0},
    "Epsilon Scaling": {"scaling_factor": 0.8},
    "FreSca": {"freq_cutoff": 2},
    "HyperTile": {"tile_size": 32},
    "LTXVContextWindows": {**WINDOW, "context_length": 9},
    "LazyCache": {"reuse_threshold": 3.0},
    "ModelComputeDtype": {"dtype": "fp16"},
    "ModelSamplingContinuousEDM": {"sampling": "edm"},
    "ModelSamplingDiscrete": {"sampling": "eps", "zsnr": True},
    "PatchModelAddDownscale": {"block_number": 3},
    "SelectModelDevice": {"device": "cpu"},
    "SkipLayerGuidanceDiT": {"double_layers": LAYERS, "single_layers": LAYERS},
    "SkipLayerGuidanceDiTSimple": {"double_layers": LAYERS, "single_layers": LAYERS},
    "SkipLayerGuidanceSD3": {"layers": LAYERS},
    "TomePatchModel": {"ratio": 0.5},
    "TorchCompileModel": {"backend": "inductor"},
    "WanContextWindowsManual": {**WINDOW, "context_length": 5},
}
# where the frames lie, and how many latent ones a window holds
FRAMES = {"svd": {"dim": 0, "context_length": 1}, "cogvideox": {"dim": 2, "context_length": 2}}
EVERYWHERE = {
    **{"start_percent": 0.0, "end_percent": 1.0},
    **{"width": 64, "height": 64, "length": 13, "batch_size": 1},
}
# layers whose weights are merged, and attention layers that are scaled and that LoRAs are for
MERGED = {
    "svd": ("input_blocks.0.0", "middle_block.1.proj_in", "output_blocks.0.0.in_layers.2", "out.2"),
    "cogvideox": ("transformer_blocks.0.ff.net.2", "transformer_blocks.1.ff.net.0.proj"),
}
ATTENTIONS = {
    "svd": tuple(
        f"input_blocks.1.1.{place}.0.attn{number}.to_{name}"
        for place in ("transformer_blocks", "time_stack")
        for number in (1, 2)
        for name in ("v", "out.0")
    ),
    "cogvideox": ("transformer_blocks.0.attn1.to_q", "transformer_blocks.0.attn1.to_out.0"),
}


class Inputs:
    """Inputs for the nodes of one pair, the same for the host's MODEL and for ours."""

    def __init__(self, pair):
        self.pair = pair

    def of(self, name, rows, model, even=False):
        """What a node called `name` with these rows (name -> (type, options)) gets; `even`: one ratio for all blocks."""
        values = {**EVERYWHERE, **VALUES.get(name, {})}
        if name == "ContextWindowsManual":
            values |= FRAMES[self.pair.family]
        if name.startswith("ModelMerge"):
            ratios = [key for key, (word, _) in rows.items() if word == "FLOAT"]
            values |= {key: 0.3 if even else 0.1 + 0.07 * (7 * i % 11) for i, key in enumerate(ratios)}
        return {
            key: values[key] if key in values else self._made(name, key, word, options, model)
            for key, (word, options) in rows.items()
        }

    def _made(self, name, key, word, options, model):
        if word == "FLOAT":
            return moved(options)
        if word in ("INT", "BOOLEAN", "STRING"):
            return options["default"]
        if key == "lora_name":
            return self._lora_file(model)
        if key == "hypernetwork_name":
            return self._hypernetwork_file()
        if word == "COMBO" or isinstance(word, list):
            return options.get("default", (options["options"] if word == "COMBO" else word)[0])
        return getattr(self, "_" + word.lower())(name, key, model)

    def _model(self, name, key, model):
        if key == "model2":
            return Partial(self._other(model), self.pair.named(model, MERGED[self.pair.family]))
        if "AttentionMultiply" in name:
            return Partial(model, self.pair.named(model, ATTENTIONS[self.pair.family]))
        return model

    def _other(self, model):
        """A MODEL to merge with: the same, some of its weights of half the size."""
        other = model.clone()
        other.add_patches(dict.fromkeys(self.pair.named(model, MERGED[self.pair.family]), (None,)), 0.0, 0.5)
        return other

    def _conditioning(self, name, key, model):
        positive, negative, empty = self.pair.clips["plain"].prompts
        return {"positive": positive, "negative": negative}.get(key, empty)

    def _clip(self, name, key, model):
        return self.pair.bench.shared("5B")[1]

    def _vae(self, name, key, model):
        if key == "audio_vae":
            return SimpleNamespace(audio_sample_rate=16000, encode=lambda wave: torch.zeros(1, 8, 4, 16))
        return self.pair.bench.svd()[2] if name == "SUPIRApply" else self.pair.bench.shared("5B")[2]

    def _image(self, name, key, model):
        return self.pair.bench.picture(13 if name == "WanInfiniteTalkToVideo" else 1)

    def _mask(self, name, key, model):
        return torch.ones(1, 64, 64)

    def _latent(self, name, key, model):
        return self.pair.clips["plain"].latent

    def _latent_operation(self, name, key, model):
        from comfy_extras.nodes_latent import LatentOperationTonemapReinhard

        return run(LatentOperationTonemapReinhard, multiplier=0.5)[0]

    def _audio(self, name, key, model):
        return {"waveform": torch.zeros(1, 1, 1600), "sample_rate": 16000}

    def _audio_encoder_output(self, name, key, model):
        return {
            "encoded_audio_all_layers": [torch.zeros(1, 100, 16) for _ in range(3)],
            "audio_samples": 32000,
        }

    def _clip_vision_output(self, name, key, model):
        states = torch.zeros(1, 24, 9, 8)
        return SimpleNamespace(all_hidden_states=states, penultimate_hidden_states=states[:, 0])

    def _comfy_dynamiccombo_v3(self, name, key, model):
        return {key: "single_speaker"}

    def _lora_model(self, name, key, model):
        """A LoRA for some layers of a MODEL, in the names of its own weights."""
        generator, weights = torch.Generator().manual_seed(3), model.model_state_dict()
        tensors = {}
        for key in self.pair.named(model, ATTENTIONS[self.pair.family]):
            rows, columns = weights[key].shape
            name = key.removesuffix(".weight")
            tensors[f"{name}.lora_down.weight"] = torch.randn(4, columns, generator=generator) * 0.1
            tensors[f"{name}.lora_up.weight"] = torch.randn(rows, 4, generator=generator) * 0.5
        return tensors

    def _lora_file(self, model):
        name = f"tiny-patch-{self.pair.family}-{type(model.model).__name__}.safetensors"
        save_file(self._lora_model(name, name, model), folder_of("loras") / name)
        return name

    def _hypernetwork_file(self):
        """Two linear layers, for keys and for values, of each width that occurs."""
        generator = torch.Generator().manual_seed(4)
        table = {"activation_func": "linear"}
        for width in (32, 64, 128):
            weights = torch.randn(2, width, width, generator=generator) / width
            table[width] = [
                {"linear.0.weight": weight, "linear.0.bias": torch.zeros(width)} for weight in weights
            ]
        torch.save(table, folder_of("hypernetworks") / "tiny-patch.pt")
        return "tiny-patch.pt"

    def _model_patch(self, name, key, model):
        """A patcher around a module of another family, as the host's loader makes it."""
        import comfy.model_patcher
        import comfy.ops

        place = {"device": "cpu", "dtype": torch.float32, "operations": comfy.ops.disable_weight_init}
        module = PATCHES.get(name, stand_in)(**place)
        cpu = torch.device("cpu")
        return comfy.model_patcher.ModelPatcher(module, load_device=cpu, offload_device=cpu)


def moved(options):
    """A legal number that is not the default."""
    value = options["default"] * 0.6 + 0.1
    return min(max(value, options.get("min", value)), options.get("max", value))


def folder_of(kind):
    import folder_paths

    folder = Path(folder_paths.get_folder_paths(kind)[0])
    folder.mkdir(exist_ok=True)
    return folder


def qwen_controlnet(**place):
    from comfy_extras.nodes_model_patch import QwenImageBlockWiseControlNet

    return QwenImageBlockWiseControlNet(num_layers=1, dim=8, **place)


def z_image_controlnet(**place):
    from comfy.ldm.lumina.controlnet import ZImage_Control

    return ZImage_Control(dim=32, n_heads=1, n_kv_heads=1, n_control_layers=1, **place)


def uni3c_controlnet(**place):
    from comfy.ldm.wan.uni3c import WanUni3CControlnet

    small = {"conv_out_dim": 32, "dim": 32, "ffn_dim": 8, "num_heads": 1, "num_layers": 1, "mid_channels": 32}
    return WanUni3CControlnet(**small, time_embed_dim=32, out_proj_dim=32, **place)


def multi_talk(**place):
    from comfy.ldm.wan.model_multitalk import MultiTalkAudioProjModel

    sizes = {"blocks": 2, "channels": 16, "intermediate_dim": 8, "out_dim": 8, "context_tokens": 2}
    module = torch.nn.Module()
    module.audio_proj = MultiTalkAudioProjModel(seq_len=5, seq_len_vf=8, **sizes, **place)
    return module


def supir(**place):
    """What SUPIR's patch calls, doing the least: features that are numbers, adapters that scale."""
    module = torch.nn.Module()
    module.control_model = lambda hint, timesteps, x, context, y: [1.0] * 16
    module.project_modules = [scaling] * 32
    return module


def scaling(feature, h, behind=None, control_scale=1.0):
    """An adapter: the middle and what is upsampled grow, and what was passed over is put behind the way up."""
    return h * 1.1 if behind is None else torch.cat([behind, h * 1.1], dim=1)


def stand_in(**place):
    module = torch.nn.Module()
    module.cond_in_channels = 3
    return module


PATCHES = {
    "QwenImageDiffsynthControlnet": qwen_controlnet,
    "SUPIRApply": supir,
    "WanInfiniteTalkToVideo": multi_talk,
    "WanUni3CControlnetApply": uni3c_controlnet,
    "ZImageFunControlnet": z_image_controlnet,
}
