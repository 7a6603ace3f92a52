"""Other architectures and other chat templates, by the same path: `--model FOLDER`. And models that cannot be had."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from helpers import plain_logprobs, plain_model, random_adapter, surroundings
from teamtune.cli import main as command
from teamtune.engines import EngineSpec, open_engine
from teamtune.engines.render import Renderer
from teamtune.models import check_lora, load_model
from teamtune.store import read_table
from teamtune.train.fit import Fit, fit
from teamtune.train.objective import Preference, Sft
from teamtune.train.team import Lora, TeamModel
from teamtune.types import Agent, Ask, Message, Row, Sampling, Team, TeamtuneError

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PHI = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' + m['content'] | trim }}"
    "{{ '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Kind:
    """An architecture in small, and what its tokenizer looks like. Ids of special tokens follow their order."""

    model: str
    template: str
    specials: tuple[str, ...]
    eos: str
    pad: str
    stops: tuple[str, ...]
    """what the generation config lists, as the real models do"""
    prompt: str
    """what the chat of system "S" and user "U" looks like"""
    options: dict[str, Any]
    bos: str | None = None


QWEN = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
PHIS = ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
GEMMAS = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")
QWEN_PROMPT = "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"
PHI_PROMPT = "<|system|>\nS<|end|>\n<|user|>\nU<|end|>\n<|assistant|>\n"
GEMMA_PROMPT = "<bos><start_of_turn>user\nS\n\nU<end_of_turn>\n<start_of_turn>model\n"
KINDS = {
    "qwen2": Kind("Qwen2", CHATML, QWEN, QWEN[2], QWEN[0], (QWEN[2], QWEN[0]), QWEN_PROMPT, {}),
    "qwen3": Kind("Qwen3", CHATML, QWEN, QWEN[2], QWEN[0], (QWEN[2], QWEN[0]), QWEN_PROMPT, {"head_dim": 16}),
    # the turn ends with <|end|>, which is not the tokenizer's eos; a window shorter than the prompts
    "phi3": Kind("Phi3", PHI, PHIS, PHIS[0], PHIS[0], (PHIS[0], PHIS[4]), PHI_PROMPT, {"sliding_window": 24}),
    # every other layer has a sliding window; logits are soft-capped
    "gemma2": Kind(
        "Gemma2",
        GEMMA,
        GEMMAS,
        GEMMAS[1],
        GEMMAS[0],
        (GEMMAS[1], GEMMAS[4]),
        GEMMA_PROMPT,
        {"head_dim": 16, "sliding_window": 16, "query_pre_attn_scalar": 16, "num_hidden_layers": 4},
        GEMMAS[2],
    ),
    "gemma3": Kind(
        "Gemma3Text",
        GEMMA,
        GEMMAS,
        GEMMAS[1],
        GEMMAS[0],
        (GEMMAS[1], GEMMAS[4]),
        GEMMA_PROMPT,
        {
            "head_dim": 16,
            "sliding_window": 16,
            "query_pre_attn_scalar": 16,
            "num_hidden_layers": 4,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
        },
        GEMMAS[2],
    ),
}
NAMES = list(KINDS)


def tokenizer_like(kind: Kind) -> Any:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d| ?\w+|[^\w]"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=list(kind.specials), initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(["Solve the problem. Answer: 12"] * 3, trainer)
    more = {} if kind.bos is None else {"bos_token": kind.bos}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=kind.pad, eos_token=kind.eos, chat_template=kind.template, **more
    )


def made(name: str, folder: Path, more_stops: int = 0) -> str:
    """The model's folder. With `more_stops` so many bytes end an answer too, so that a random model's answers end."""
    kind = KINDS[name]
    tokenizer = tokenizer_like(kind)
    options: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        **kind.options,
    }
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind.model}Config")(**options)
    model = getattr(transformers, f"{kind.model.removesuffix('Text')}ForCausalLM")(config)
    stops = tokenizer.convert_tokens_to_ids(list(kind.stops))
    model.generation_config.eos_token_id = [*stops, *range(230, 230 + more_stops)]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module", params=NAMES)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return made(request.param, tmp_path_factory.mktemp(request.param))


def name_of(path: str) -> str:
    return next(name for name in NAMES if Path(path).name.startswith(name))


def ask(agent: str, text: str, system: str = "You solve.") -> Ask:
    return Ask(agent, (Message("system", system), Message("user", text)), "test")


def asks_of(agents: list[str], each: int = 3) -> list[Ask]:
    return [ask(agent, f"What is {i} + {i * i}?" * (1 + 2 * i)) for i in range(each) for agent in agents]


def test_the_chat_looks_as_the_template_says(path: str) -> None:
    """Gemma's template refuses a system message: it opens the first user message."""
    engine: Any = open_engine(EngineSpec(), Team(path, (Agent("one"),)))
    kind = KINDS[name_of(path)]
    ids = engine.renderer.prompt([Message("system", "S"), Message("user", "U")])
    assert engine.tokenizer.decode(ids) == kind.prompt
    no_system = engine.renderer.prompt([Message("user", "U"), Message("assistant", "A"), Message("user", "U")])
    shown = engine.tokenizer.decode(no_system)
    assert shown.index("U") < shown.index("A") < shown.rindex("U")
    assert engine.stops == sorted(engine.tokenizer.convert_tokens_to_ids(list(kind.stops)))


def test_a_model_that_sees_is_trained_where_it_reads(tmp_path: Path) -> None:
    """Gemma 3 from 4B on: adapters of the vision tower would learn nothing, and engines may refuse them."""
    text = {"layer_types": ["full_attention"] * 2, "query_pre_attn_scalar": 16, "head_dim": 16, "vocab_size": 64}
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    seen = {**sizes, "intermediate_size": 48, "image_size": 28, "patch_size": 14}
    config = transformers.Gemma3Config(
        text_config=text | sizes | {"intermediate_size": 48, "num_key_value_heads": 1}, vision_config=seen
    )
    for lora in (Lora(rank=2), Lora(rank=2, targets="q_proj")):
        base = transformers.AutoModelForCausalLM.from_config(config)
        team = Team("gemma", (Agent("one"), Agent("two")))
        model = TeamModel.around(base, tokenizer_like(KINDS["gemma3"]), team, team.names, lora)
        model.save("two", tmp_path / "two")
        names = load_file(tmp_path / "two" / "adapter_model.safetensors")
        assert len(names) == 2 * 2 * (1 if lora.targets == "q_proj" else 7)
        assert all(".language_model.layers." in name for name in names)


def test_greedy_and_logprobs_are_those_of_transformers(path: str, tmp_path: Path) -> None:
    """Padded, in a mixed batch, and beyond a sliding window, against one sequence at a time."""
    sampling = Sampling(temperature=0.0, max_tokens=40)
    adapters = [None, random_adapter(path, tmp_path / "a", 1), random_adapter(path, tmp_path / "b", 2)]
    team = Team(path, tuple(Agent(f"seat-{i}", "", sampling, where) for i, where in enumerate(adapters)))
    engine = open_engine(EngineSpec(), team)
    engine.adopt(team)
    asks = asks_of(team.names)
    done = engine.generate(asks, [0] * len(asks))
    answers: dict[str, list[tuple[int, ...]]] = {}
    for seat in team.agents:
        model = plain_model(path, seat.adapter)
        for one, got in zip(asks, done, strict=True):
            if one.agent != seat.name:
                continue
            assert got.prompt_ids and got.token_ids and got.logprobs
            assert len(got.prompt_ids) > 24, "longer than any window here"
            prompt = torch.tensor([got.prompt_ids])
            want = model.generate(
                input_ids=prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=40
            )
            assert list(got.token_ids) == want[0, prompt.shape[1] :].tolist()
            logprobs = plain_logprobs(model, got.prompt_ids, got.token_ids)
            torch.testing.assert_close(torch.tensor(got.logprobs), logprobs, atol=1e-4, rtol=0)
            answers.setdefault(seat.name, []).append(got.token_ids)
    assert answers["seat-0"] != answers["seat-1"] != answers["seat-2"] != answers["seat-0"]


def test_sampled_answers_do_not_depend_on_the_batch(path: str) -> None:
    team = Team(path, (Agent("one", sampling=Sampling(max_tokens=30)),))
    engine = open_engine(EngineSpec(), team)
    engine.adopt(team)
    asks = [one for one in asks_of(["one"]) for _ in range(2)]
    together = engine.generate(asks, list(range(len(asks))))
    alone = [engine.generate([one], [seed])[0] for seed, one in enumerate(asks)]
    assert [one.token_ids for one in together] == [one.token_ids for one in alone]
    assert len({one.token_ids for one in together}) == len(asks)


def sft_rows(agents: list[str]) -> list[Row]:
    messages = [[{"role": "system", "content": "You solve."}, {"role": "user", "content": f"{i}?"}] for i in range(6)]
    return [
        {"agent": agent, "messages": m, "completion": f"Answer: {i}", "prompt_ids": None, "token_ids": None}
        for agent in agents
        for i, m in enumerate(messages)
    ]


def pair_rows(agents: list[str]) -> list[Row]:
    gone = dict.fromkeys(("prompt_ids", "chosen_ids", "rejected_ids"))
    return [
        {"agent": row["agent"], "messages": row["messages"], "chosen": row["completion"], "rejected": "No.", **gone}
        for row in sft_rows(agents)
    ]


def test_sft_and_dpo_of_two_agents_run_and_their_adapters_load(path: str, tmp_path: Path) -> None:
    """The log-probability of what is learnt rises; the engine answers with exactly what was trained."""
    agents, lora = ["one", "two"], Lora(rank=4, alpha=8)
    team = Team(path, tuple(Agent(agent, sampling=Sampling(0.0, max_tokens=12)) for agent in agents))
    options = Fit(rate=1e-2, batch=3, epochs=3, warmup=0.0)
    sft = list(fit(tmp_path / "sft", sft_rows(agents), team, agents, lora, Sft(), options))
    star = team.adopt({agent: str(tmp_path / "sft" / agent) for agent in agents})
    dpo = list(fit(tmp_path / "dpo", pair_rows(agents), star, agents, lora, Preference(), options))
    final = star.adopt({agent: str(tmp_path / "dpo" / agent) for agent in agents})
    for agent in agents:
        assert float(sft[-1][f"{agent}/loss"]) < 0.9 * float(sft[0][f"{agent}/loss"])
        assert dpo[0][f"{agent}/loss"] == pytest.approx(0.6931472, abs=1e-6)
        assert float(dpo[-1][f"{agent}/margin"]) > 0.1
        again = TeamModel.open(final, agents, lora)
        saved = load_file(tmp_path / "dpo" / agent / "adapter_model.safetensors")
        assert again.weights(agent).keys() == saved.keys()
        for name, tensor in again.weights(agent).items():
            torch.testing.assert_close(tensor.detach(), saved[name], rtol=0, atol=0)
    engine = open_engine(EngineSpec(), final)
    engine.adopt(final)
    asks = [ask(agent, "3?") for agent in agents]
    for one, got in zip(asks, engine.generate(asks, [0, 0]), strict=True):
        assert got.prompt_ids and got.token_ids and got.logprobs
        model = plain_model(path, final[one.agent].adapter)
        want = plain_logprobs(model, got.prompt_ids, got.token_ids)
        torch.testing.assert_close(torch.tensor(got.logprobs), want, atol=1e-4, rtol=0)


def test_a_turn_without_ids_is_learnt_with_the_stop_of_its_chat_template(path: str) -> None:
    """What a server without ids answered is tokenised as the template closes a turn, not just with any eos."""
    from teamtune.engines.render import Renderer
    from teamtune.train.examples import sft_example

    _, tokenizer = load_model(path)
    [row, *_] = sft_rows(["one"])
    made = sft_example(row, Renderer(tokenizer, path))
    chat = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": row["completion"]}]
    whole = tokenizer.apply_chat_template(chat, tokenize=True, return_dict=True)["input_ids"]
    bare = tokenizer(row["completion"], add_special_tokens=False)["input_ids"]
    start = next(i for i in range(len(whole)) if list(whole[i : i + len(bare)]) == bare)
    assert made.answer[:-1] == bare
    assert tokenizer.decode(made.answer[-1:]) == tokenizer.decode(whole[start + len(bare)])


@pytest.mark.parametrize("name", ["qwen3", "phi3", "gemma2"])
def test_malt_runs_by_the_command_line(tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    arguments = ["--model", made(name, tmp_path / "model", 30), "--out", str(run), "--task", "tests.easy_task"]
    arguments += ["--train", "6", "--test", "2", "--width", "2", "--baselines", "none", "--sampling.max-tokens", "12"]
    command(["malt", *arguments, "--lora.rank", "4", "--sft.rate", "1e-2", "--dpo.rate", "1e-2", "--sft.epochs", "2"])
    table = read_table(run / "comparison").rows()
    assert [row["system"] for row in table] == ["MALT, one pass", "MALT + MV@3"]
    assert {turn["finish"] for turn in read_table(run / "turns").rows()} == {"stop", "length"}
    weights = load_file(run / "dpo" / "verifier" / "adapter_model.safetensors")
    assert any(float(tensor.abs().max()) > 0 for key, tensor in weights.items() if "lora_B" in key)


def test_fused_projections_can_be_the_targets(tmp_path: Path) -> None:
    """By the names that the model has for them."""
    where = made("phi3", tmp_path / "model", 30)
    lora = Lora(rank=4, alpha=8, targets="qkv_proj,gate_up_proj")
    check_lora(where, lora.targets, shard=False, bits=16)
    team = Team(where, (Agent("one", sampling=Sampling(0.0, max_tokens=12)),))
    lines = list(fit(tmp_path / "fit", sft_rows(["one"]), team, ["one"], lora, Sft(), Fit(1e-2, 3, batch=3)))
    assert float(lines[-1]["one/loss"]) < float(lines[0]["one/loss"])
    weights = load_file(tmp_path / "fit" / "one" / "adapter_model.safetensors")
    assert {name.split(".")[-3] for name in weights} == {"qkv_proj", "gate_up_proj"}
    final = team.adopt({"one": str(tmp_path / "fit" / "one")})
    engine = open_engine(EngineSpec(), final)
    engine.adopt(final)
    [got] = engine.generate([ask("one", "3?")], [0])
    want = plain_logprobs(plain_model(where, final["one"].adapter), got.prompt_ids or (), got.token_ids or ())
    torch.testing.assert_close(torch.tensor(got.logprobs), want, atol=1e-4, rtol=0)


# Models that cannot be had


def saved(model: Any, folder: Path) -> str:
    """A random model with the Qwen tokenizer and chat template."""
    tokenizer_like(KINDS["qwen2"]).save_pretrained(folder)
    model.save_pretrained(folder)
    return str(folder)


def test_a_model_that_keeps_no_keys_and_values_is_an_error_that_says_so(tmp_path: Path) -> None:
    config = transformers.MambaConfig(vocab_size=300, hidden_size=16, num_hidden_layers=2, state_size=4)
    where = saved(transformers.MambaForCausalLM(config), tmp_path / "mamba")
    with pytest.raises(TeamtuneError, match="needs a model of attention layers alone; mamba has"):
        open_engine(EngineSpec(), Team(where, (Agent("a"),)))


def test_a_model_that_flattens_its_batch_takes_one_adapter_at_a_time(tmp_path: Path) -> None:
    """OPT reshapes to (rows * length, width) on the way, so that PEFT cannot route its rows."""
    torch.manual_seed(0)
    config = transformers.OPTConfig(
        vocab_size=300,
        hidden_size=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        word_embed_proj_dim=32,
        max_position_embeddings=512,
        init_std=0.2,
    )
    where = saved(transformers.OPTForCausalLM(config), tmp_path / "opt")
    paths = [random_adapter(where, tmp_path / f"adapter-{i}", i) for i in range(2)]
    greedy = Sampling(temperature=0.0, max_tokens=8)
    seats = [Agent("base", sampling=greedy), *(Agent(f"a{i}", "", greedy, one) for i, one in enumerate(paths))]
    team = Team(where, tuple(seats))
    engine = open_engine(EngineSpec(), team)
    engine.adopt(team)
    asks = [Ask(team.names[i % 3], (Message("user", f"Solve {i}"),), "test") for i in range(9)]
    found = engine.generate(asks, [0] * 9)
    for asked, done in zip(asks, found, strict=True):
        plain = plain_model(where, team[asked.agent].adapter)
        want = plain_logprobs(plain, done.prompt_ids or (), done.token_ids or ())
        torch.testing.assert_close(torch.tensor(done.logprobs), want, atol=1e-4, rtol=1e-4)
    told = {"messages": [{"role": "user", "content": "Solve 3"}], "completion": "3"}
    rows: list[Row] = [{"agent": f"a{i % 2}", **told, "prompt_ids": None, "token_ids": None} for i in range(3)]
    lines = list(fit(tmp_path / "fit", rows, team, ["a0", "a1"], Lora(rank=4), Sft(), Fit(batch=2)))
    assert {"a0/loss", "a1/loss"} <= lines[0].keys()


def test_a_model_without_a_chat_template_is_an_error(path: str, tmp_path: Path) -> None:
    model, tokenizer = load_model(path)
    tokenizer.chat_template = None
    model.save_pretrained(tmp_path / "bare")
    tokenizer.save_pretrained(tmp_path / "bare")
    team = Team(str(tmp_path / "bare"), (Agent("one"),))
    with pytest.raises(TeamtuneError, match="bare' has no chat template"):
        open_engine(EngineSpec(), team)
    with pytest.raises(TeamtuneError, match="has no chat template"):
        list(fit(tmp_path / "fit", sft_rows(["one"]), team, ["one"], Lora(rank=2), Sft(), Fit()))


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "~/no/such/folder", "nowhere", "a/b/c"])
def test_a_path_that_does_not_exist_is_an_error_without_asking_the_hub(name: str) -> None:
    with pytest.raises(TeamtuneError, match=f"no model at '{name}'; give a folder that exists"):
        load_model(name)


def spoilt(folder: Path, how: str, tiny: str) -> Path:
    """A folder that is no model, in one of many ways."""
    if how == "a file":
        folder.write_text("not a folder")
        return folder
    folder.mkdir()
    if how == "empty":
        return folder
    if how == "something else":
        (folder / "notes.txt").write_text("hello")
        return folder
    for file in Path(tiny).iterdir():
        if not (how == "no weights" and file.suffix == ".safetensors"):
            (folder / file.name).write_bytes(file.read_bytes())
    if how == "no tokenizer":
        for file in folder.glob("*token*"):
            file.unlink()
    if how == "cut weights":
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:5000])
    if how == "corrupt config":
        (folder / "config.json").write_text('{"model_type": ')
    if how == "unknown architecture":
        (folder / "config.json").write_text('{"model_type": "no-such-thing"}')
    return folder


@pytest.mark.parametrize(
    "how",
    [
        "a file",
        "empty",
        "something else",
        "no weights",
        "no tokenizer",
        "cut weights",
        "corrupt config",
        "unknown architecture",
    ],
)
def test_a_folder_that_is_no_model_is_an_error_that_names_it(tiny: str, tmp_path: Path, how: str) -> None:
    where = spoilt(tmp_path / "odd", how, tiny)
    with pytest.raises(TeamtuneError, match="odd' is no transformers model folder") as found:
        load_model(str(where))
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    "environment", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}], ids=["offline", "refused"]
)
def test_an_unreachable_hub_is_one_sentence_and_soon(tmp_path: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "-c", "from teamtune.cli import main; main()", "baselines"]
    command += ["--model", "no-such-org/no-such-model", "--test", "1", "--out", str(tmp_path / "run")]
    settings = {**surroundings(), "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0", **environment}
    done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=20)
    assert done.returncode == 2
    assert "model 'no-such-org/no-such-model' cannot be fetched: the hub is unreachable" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_template_that_tells_the_date_tells_the_same_one_every_day(brief: str) -> None:
    """A run that goes on tomorrow must ask what it asked today."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(brief)
    own, asked = tokenizer.chat_template, [Message("user", "2 + 2?")]
    plain = tokenizer.decode(Renderer(tokenizer, "plain").prompt(asked))
    for form, told in (("%d %b %Y", "26 Jul 2024"), ("%d %B %Y", "26 July 2024"), ("%Y-%m-%d", "2024-07-26")):
        dated = "{% if strftime_now is defined %}{{ strftime_now('" + form + "') }}{% endif %}"
        tokenizer.chat_template = dated + own
        text = tokenizer.decode(Renderer(tokenizer, "dated").prompt(asked))
        assert told in text and text.replace(told, "") == plain
