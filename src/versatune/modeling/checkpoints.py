"""References to model checkpoints, and loading them safely."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError

from versatune.artifacts import (
    MANIFEST,
    check,
    fingerprint,
    folder_digest,
    read_json,
    read_manifest,
)
from versatune.data.own_templates import chat_templates
from versatune.data.tokenize import TOKENIZER_FILES
from versatune.errors import VersatuneError
from versatune.modeling.ties import untie_adapted, without_advice

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

ADAPTER_CONFIG = "adapter_config.json"

GENERATION_CONFIG = "generation_config.json"

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")

PLAIN_CHAT_TEMPLATE = (
    "{{ bos_token or '' }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] }}{{ eos_token }}{% endgeneration %}"
    "{% else %}"
    "{{ message['content'] + '\n' }}"
    "{% endif %}"
    "{% endfor %}"
)
"""For tokenizers without a chat template: only contents, answers ended by eos."""


class CheckpointRef(BaseModel):
    """A Hugging Face folder on this disk, with what stands for its content."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """The displayed name: the hub id, the folder's name, or ``pretrained on the sample``."""
    path: Path
    fingerprint: str

    @classmethod
    def of_folder(cls, path: Path | str, name: str | None = None) -> Self:
        """Refer to a local folder, refusing one that can't be loaded safely."""
        path = Path(path)
        if not (path / "config.json").is_file():
            raise VersatuneError(f"{path} is not a model folder: it has no config.json.")
        if not any(path.glob("*.safetensors")):
            pickles = [f.name for f in path.iterdir() if f.suffix in PICKLES]
            found = f" {pickles[0]} is a pickle, which can run code when loaded." if pickles else ""
            raise VersatuneError(
                f"{path} has no *.safetensors weights.{found} "
                "Convert it with save_pretrained() where you trust it."
            )
        return cls(name=name or path.resolve().name, path=path, fingerprint=folder_digest(path))

    @classmethod
    def from_manifest(cls, path: Path, name: str) -> Self:
        """Refer to a folder that a stage made and sealed, by what its manifest says of the files.

        Only the files count, not what the model was made from.
        """
        return cls(name=name, path=path, fingerprint=_of_files(read_manifest(path)["files"]))

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any]) -> Self:
        """The reference that a stage before noted, after comparing the folder with it.

        A hub model's fingerprint is its commit, which its files can't be compared with. Raises
        VersatuneError when the folder is gone or its files are no longer those.
        """
        ref = cls.model_validate(entry)
        manifest = read_json(ref.path / MANIFEST) if (ref.path / MANIFEST).is_file() else None
        files = manifest.get("files") if isinstance(manifest, dict) else None
        if isinstance(files, dict) and ref.fingerprint == _of_files(files):
            check(ref.path)
        elif not ref.path.is_dir():
            raise VersatuneError(f"the model {ref.path} is gone; run the pipeline from `ingest`.")
        elif ref.path.name != ref.fingerprint and folder_digest(ref.path) != ref.fingerprint:
            raise VersatuneError(
                f"the model in {ref.path} is not the one `ingest` found there: its files were "
                "changed or damaged. Restore them, or run the pipeline from `ingest`."
            )
        return ref


def _of_files(digests: Mapping[str, str]) -> str:
    """The fingerprint of a model: the digests of its weights, configuration and tokenizer, by file
    name."""
    ends = (".safetensors", "config.json", ".model")
    return fingerprint(
        {n: d for n, d in digests.items() if n.endswith(ends) or n.startswith(TOKENIZER_FILES)}
    )


def load_model(
    ref: CheckpointRef | Path,
    *,
    dtype: str = "auto",
    quantization: Any = None,
    parallelize: bool = False,
) -> "PreTrainedModel":
    """The causal language model of a checkpoint: safetensors only, no remote code, eval mode.

    A folder that holds only an adapter gives the base model it names with the adapter merged
    into it, and the adapter's own generation config where it has one. ``dtype``: a torch dtype's
    name, or ``auto`` for the one it was saved in. ``quantization``: a transformers quantisation
    configuration; such a model lies on the device it is trained on, and a checkpoint that is an
    adapter can't be loaded so. ``parallelize``: divide the layers over all devices. Raises
    VersatuneError when the folder (or the base's) is missing, damaged, or holds no such model.
    """
    import torch
    from transformers import AutoModelForCausalLM

    path = Path(_path(ref))
    adapter = path / ADAPTER_CONFIG
    alone = adapter.is_file() and not (path / "config.json").is_file()
    with _told("model", ref):
        if alone and not (path / "adapter_model.safetensors").is_file():
            raise OSError(f"there is no adapter_model.safetensors beside its {ADAPTER_CONFIG}")
        whole = read_json(adapter)["base_model_name_or_path"] if alone else str(path)
        asked: dict[str, Any] = {"device_map": "auto"} if parallelize else {}
        if quantization is not None:
            if alone:
                raise ValueError("an adapter can't be merged into 4 bits: merge and save it first")
            place = torch.cuda.current_device() if torch.cuda.is_available() else "cpu"
            asked = {"quantization_config": quantization, "device_map": {"": place}}
        model = AutoModelForCausalLM.from_pretrained(
            whole, dtype=dtype, use_safetensors=True, **asked, **_SAFE
        )
        if alone:
            model = merged(model, path)
            if (path / GENERATION_CONFIG).is_file():
                model.generation_config = generation_config(path)
    result: PreTrainedModel = model.eval()
    return result


def generation_config(ref: CheckpointRef | Path) -> "GenerationConfig":
    """How a checkpoint generates: its generation config, or what its config says of that."""
    from transformers import AutoConfig, GenerationConfig

    path = _path(ref)
    with _told("generation config", ref):
        if (Path(path) / GENERATION_CONFIG).is_file():
            return GenerationConfig.from_pretrained(path, local_files_only=True)
        return GenerationConfig.from_model_config(AutoConfig.from_pretrained(path, **_SAFE))


def saved_dtype(ref: CheckpointRef | Path) -> str:
    """The dtype's name that :func:`load_model` would load a checkpoint in; reads no weights.

    As there the config's, else that of the first weights. Raises as there.
    """
    from transformers import AutoConfig
    from transformers.modeling_utils import get_state_dict_dtype, load_state_dict

    with _told("model", ref):
        dtype = AutoConfig.from_pretrained(_path(ref), **_SAFE).dtype
        if dtype is None:
            first = min(Path(_path(ref)).glob("*.safetensors"))
            dtype = get_state_dict_dtype(load_state_dict(str(first), map_location="meta"))
    return str(dtype).removeprefix("torch.")


def load_tokenizer(ref: CheckpointRef | Path) -> "PreTrainedTokenizerBase":
    """The tokenizer of a checkpoint, with a pad token and a chat template.

    A missing pad token becomes the end token; a missing chat template becomes
    :data:`PLAIN_CHAT_TEMPLATE`. Raises VersatuneError when there is no end token, no tokenizer
    that can be loaded, or no default among several chat templates.
    """
    from transformers import AutoTokenizer

    with _told("tokenizer", ref):
        tokenizer = AutoTokenizer.from_pretrained(_path(ref), **_SAFE)
    if tokenizer.eos_token_id is None:
        raise VersatuneError(
            f"the tokenizer in {_path(ref)} has no eos_token; set one in tokenizer_config.json: "
            "without it the model can't learn where an answer ends."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if not tokenizer.chat_template:
        tokenizer.chat_template = PLAIN_CHAT_TEMPLATE
    chat_templates(tokenizer)
    return tokenizer


def same_vocabulary(other: CheckpointRef, base: CheckpointRef, otherwise: str) -> None:
    """Raise VersatuneError unless the same token ids mean the same texts to both models.

    ``otherwise``: what a person is to do then, a sentence or two.
    """
    theirs, ours = (load_tokenizer(ref).get_vocab() for ref in (other, base))
    if theirs != ours:
        differ = len(theirs.items() ^ ours.items())
        raise VersatuneError(
            f"{other.name} ({other.path}) has another vocabulary than {base.name} ({differ} "
            f"entries differ): rows tokenised for one mean nothing to the other. {otherwise}"
        )


def merged(base: Any, adapter: Path) -> Any:
    """``base`` with the adapter of a folder merged into its weights; see ``ties`` for tied ones."""
    from peft import PeftModel

    with without_advice():
        adapted = PeftModel.from_pretrained(base, str(adapter), local_files_only=True)
        untie_adapted(adapted)
        return adapted.merge_and_unload()


_SAFE: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}


@contextlib.contextmanager
def _told(what: str, ref: CheckpointRef | Path) -> Iterator[None]:
    """Turns transformers' error about a folder it can't load into one sentence."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise VersatuneError(f"the {what} in {_path(ref)} can't be loaded: {reason}") from error


def _path(ref: CheckpointRef | Path) -> str:
    return str(ref.path if isinstance(ref, CheckpointRef) else ref)
