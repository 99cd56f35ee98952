"""`onnx:PATH` on networks whose numbers are known, and on files that do not fit or are hostile."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image
from tiny_networks import colour_network, model_with_everything_external, outside, with_subgraph, write

from latentclr.errors import ScorerError
from latentclr.pictures.pixels import to_uint8
from latentclr.scores.face_models import read_model
from latentclr.scores.onnx_scorer import OnnxScorer
from latentclr.scores.scorer import build_scorers, find_attributes

RED_AND_BLUE = [[1, 0], [0, 0], [0, 1]]
PLAIN = {"input": {"size": 8}, "outputs": {"logits": ["red", "blue"]}}


@pytest.fixture
def pictures():
    return np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)


def colours(pictures):
    return pictures.astype(float).mean((1, 2)) / 255


def test_a_classifier(tmp_path, pictures):
    word = write(tmp_path, colour_network(RED_AND_BLUE, [0, 0.5]), PLAIN)
    pixels, scorer = build_scorers(["pixels", word])
    assert scorer.name == word and scorer.attributes == ("red", "blue")
    scored = scorer(pictures)
    np.testing.assert_allclose(scored.values, colours(pictures)[:, [0, 2]] + [0, 0.5], rtol=0, atol=1e-5)
    assert scored.trusted.all() and scored.values.dtype == np.float64
    assert scorer(pictures[:0]).values.shape == (0, 2)
    assert find_attributes([pixels, scorer], ["blue"]) == [(1, 1)]
    with pytest.raises(ScorerError, match="no attribute 'bleu'; did you mean 'blue'"):
        find_attributes([pixels, scorer], ["bleu"])


def test_a_real_network(tmp_path, faces):
    """The gender network of `faces`, described by a JSON, gives what it gives when it is run by hand."""
    z = torch.randn(20, 1, 100, generator=torch.Generator().manual_seed(0))
    pictures = to_uint8(faces.synthesize(z)).numpy()
    mean = np.array([122.781998, 117.000999, 104.297997])
    spec = {
        "input": {"size": 32, "mean": (mean / 255).tolist(), "scale": 256 / 255},
        "outputs": {"probabilities": [None, "male"]},
        "activation": "probabilities",
    }
    word = write(tmp_path, read_model("gender"), spec, "gender")
    (scorer,) = build_scorers([word])
    session = onnxruntime.InferenceSession(read_model("gender"), providers=["CPUExecutionProvider"])
    small = [np.asarray(Image.fromarray(picture).resize((32, 32), Image.Resampling.BICUBIC)) for picture in pictures]
    (p,) = session.run(None, {"images": ((np.stack(small) - mean) / 256).transpose(0, 3, 1, 2).astype(np.float32)})
    np.testing.assert_allclose(1 / (1 + np.exp(-scorer(pictures).values)), p[:, 1:].clip(1e-6, 1 - 1e-6), atol=1e-4)
    with pytest.raises(ScorerError, match="both have an attribute 'male'"):
        build_scorers(["faces", word])


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("batch", ["N", 1])
def test_what_the_network_sees(tmp_path, pictures, kind, layout, batch):
    """Every form of input gives the same colours; more pictures than go in at once."""
    pictures = np.concatenate([pictures] * 4)
    mean, scale = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
    model = colour_network(np.eye(3), [0, 0, 0], batch=batch, layout=layout, kind=kind)
    spec = {
        "input": {"size": [8, 8], "layout": layout, "channels": "BGR", "mean": mean, "scale": scale},
        "outputs": {"logits": ["b", None, "r"]},
    }
    found = OnnxScorer(write(tmp_path, model, spec).removeprefix("onnx:"))(pictures)
    expected = (colours(pictures)[:, ::-1] - mean) / scale
    tolerance = 1e-5 if kind == TensorProto.FLOAT else 2e-2
    np.testing.assert_allclose(found.values, expected[:, [0, 2]], rtol=0, atol=tolerance)


def test_gray_sizes_and_fits(tmp_path):
    picture = np.zeros((1, 16, 32, 3), dtype=np.uint8)
    picture[:, :, 6:26] = 200  # the middle square is light, and a little beside it
    gray = {"size": [4, 4], "channels": "gray", "mean": 0, "scale": 1 / 255}
    model = colour_network([[1]], [0], size=(4, 4))
    for fit, expected in (("stretch", 125), ("crop", 200)):
        word = write(tmp_path, model, {"input": {**gray, "fit": fit}, "outputs": {"logits": ["light"]}}, fit)
        (scorer,) = build_scorers([word])
        assert scorer(picture).values == pytest.approx(expected, abs=6)
        turned = scorer(picture.transpose(0, 2, 1, 3)).values
        assert turned == pytest.approx(expected, abs=6)
    assert scorer(np.full((1, 1, 1, 3), 90, dtype=np.uint8)).values == pytest.approx(90, abs=0.1)


def test_log_odds(tmp_path, pictures):
    weight, bias = np.random.default_rng(1).normal(size=(3, 4)), [0.5, 0, -1, 2]
    logits = colours(pictures) @ weight + bias
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    names = ["a", "b", None, "d"]
    spec = {"input": {"size": 8}, "outputs": {"logits": names}, "activation": "softmax"}
    (scorer,) = build_scorers([write(tmp_path, colour_network(weight, bias), spec)])
    np.testing.assert_allclose(scorer(pictures).values, np.log(p / (1 - p))[:, [0, 1, 3]], rtol=0, atol=1e-4)
    # Logits beyond what probabilities can tell apart still are scores.
    (scorer,) = build_scorers([write(tmp_path, colour_network(weight, [0, 0, 0, 300]), spec, "far")])
    assert (scorer(pictures).values[:, 2] > 250).all() and scorer(pictures).trusted.all()

    spec = {"input": {"size": 8}, "outputs": {"logits": ["red", "blue"]}, "activation": "probabilities"}
    (scorer,) = build_scorers([write(tmp_path, colour_network(RED_AND_BLUE, [0, 0]), spec, "p")])
    p = colours(pictures)[:, [0, 2]]
    np.testing.assert_allclose(scorer(pictures).values, np.log(p / (1 - p)), rtol=0, atol=1e-4)
    with pytest.raises(ScorerError, match=r"output 'logits' must be probabilities in \[0, 1\], got 3"):
        build_scorers([write(tmp_path, colour_network(RED_AND_BLUE, [0, 3]), spec, "q")])


CLIP = {"input": {"size": 8}, "output": "embedding", "text": "texts.npy", "labels": ["red thing", "blue thing"]}


@pytest.mark.parametrize("pairs", [False, True])
def test_clip(tmp_path, pictures, pairs):
    texts = np.array([[[2.0, 0, 0], [0, 1, 0]], [[0, 0, 3], [1, 1, 1]]], dtype=np.float32)
    np.save(tmp_path / "texts.npy", texts if pairs else texts[:, 0])
    word = write(tmp_path, colour_network(np.eye(3), [0.1, 0.1, 0.1], output="embedding"), CLIP)
    (scorer,) = build_scorers([word])
    assert scorer.attributes == ("red thing", "blue thing")
    picture = colours(pictures) + 0.1
    picture /= np.linalg.norm(picture, axis=1, keepdims=True)
    expected = np.stack([picture[:, 0], picture[:, 2]], axis=1)
    if pairs:
        expected -= np.stack([picture[:, 1], picture.sum(1) / np.sqrt(3)], axis=1)
    np.testing.assert_allclose(scorer(pictures).values, 100 * expected, rtol=0, atol=1e-3)


def test_what_is_not_finite_is_not_trusted(tmp_path, pictures):
    """A picture of zeros has no embedding."""
    np.save(tmp_path / "texts.npy", np.eye(3)[:2])
    (scorer,) = build_scorers([write(tmp_path, colour_network(np.eye(3), [0, 0, 0], output="embedding"), CLIP)])
    pictures[2] = 0
    assert scorer(pictures).trusted.tolist() == [True, True, False, True, True]


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (np.ones((3, 3)), r"must be [2, D] or [2, 2, D] for 2 labels, got [3, 3]"),
        (np.ones((2, 3, 3)), "got [2, 3, 3]"),
        (np.ones(2), "got [2]"),
        (np.array([[1, 0, 0], [0, 0, 0.0]]), "must hold finite embeddings, none of them zero"),
        (np.array([[1, 0, 0], [0, np.nan, 1]]), "must hold finite embeddings"),
        (np.array([["a"], ["b"]]), "must hold numbers"),
        (np.ones((2, 5)), "output 'embedding' must be numbers [1, 5], got float32 [1, 3]"),
    ],
)
def test_texts_that_do_not_fit(tmp_path, texts, reason):
    np.save(tmp_path / "texts.npy", texts)
    refused(write(tmp_path, colour_network(np.eye(3), [0, 0, 0], output="embedding"), CLIP), reason)


def refused(word, reason):
    with pytest.raises(ScorerError) as caught:
        build_scorers([word])
    text = str(caught.value)
    assert reason in text and "\n" not in text and len(text) < 700, text


def test_a_missing_file(tmp_path):
    refused(f"onnx:{tmp_path}/none.onnx", "there is no file")
    refused("onnx:", "there is no file")
    refused(write(tmp_path, colour_network(RED_AND_BLUE, [0, 0]), None), "net.json beside it, which says what it sees")
    refused(write(tmp_path, colour_network(np.eye(3), [0, 0, 0], output="embedding"), CLIP), "texts.npy cannot be read")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"input": {"size": 9}}, "takes ['N', 3, 8, 8], and its JSON describes [N or 1, 3, 9, 9]"),
        ({"input": {"size": 8, "layout": "NHWC"}}, "and its JSON describes [N or 1, 8, 8, 3]"),
        ({"input": {"size": 8, "channels": "gray"}}, "and its JSON describes [N or 1, 1, 8, 8]"),
        ({"input": {"size": 0}}, "must have pixels in [1, 4096] under input.size, got 0"),
        ({"input": {"size": [8, 10**9]}}, "must have pixels in [1, 4096] under input.size"),
        ({"input": {"size": True}}, "must have pixels in [1, 4096] under input.size, got True"),
        ({"input": {}}, "must have a table in input, got {}"),
        ({"input": {"size": 8, "layuot": "NHWC"}}, "unknown key 'layuot' in input; did you mean 'layout'"),
        ({"input": {"size": 8, "fit": "pad"}}, "must have one of stretch, crop under input.fit, got 'pad'"),
        ({"input": {"size": 8, "mean": [1, 2]}}, "must have 1 or 3 finite numbers under input.mean, got [1, 2]"),
        ({"input": {"size": 8, "mean": float("nan")}}, "finite numbers under input.mean, got nan"),
        ({"input": {"size": 8, "scale": [1, 0, 1]}}, "must have no zero under input.scale"),
        ({"outputs": {"logit": ["red", "blue"]}}, "has no output 'logit'; did you mean 'logits'"),
        ({"outputs": {"logits": ["red", "blue", "green"]}}, "must be numbers [1, 3], got float32 [1, 2]"),
        ({"outputs": {"logits": ["red", "red"]}}, "must name 1 to 1000 different numbers, got 'red' twice"),
        ({"outputs": {"logits": [None, None]}}, "must name 1 to 1000 different numbers, got 0"),
        ({"outputs": {"logits": ["red", "3d"]}}, "has no name under outputs.logits: a name must be"),
        ({"outputs": {"logits": "red"}}, "must have a list of names under outputs.logits, got 'red'"),
        ({"outputs": {"logits": ["red", 3]}}, "must have names or null under outputs.logits"),
        ({"outputs": ["red"]}, "must have a table in outputs, got ['red']"),
        ({"activation": "sigmoid"}, "must have one of none, softmax, probabilities under activation"),
        ({"activation": ["softmax"]}, "under activation, got ['softmax']"),
        ({"labels": ["red"]}, "unknown key 'outputs' in the file; did you mean 'output'"),
        ({"weights": 3}, "unknown key 'weights' in the file"),
    ],
)
def test_a_json_that_does_not_fit(tmp_path, change, reason):
    refused(write(tmp_path, colour_network(RED_AND_BLUE, [0, 0]), {**PLAIN, **change}), reason)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not JSON"),
        ("[1]", "must have a table in the file, got [1]"),
        ('{"input": "${oc.env:HOME}"}', "interpolation"),
        ("[" * 100_000, "is nested more than"),
        (" " * 2_000_000, "must be at most 1000000 bytes"),
        (json.dumps({**CLIP, "text": "../texts.npy"}), "must name a file of its own folder under text"),
        (json.dumps({**CLIP, "text": ".."}), "cannot be read: Is a directory"),
        (json.dumps({**CLIP, "output": 3}), "must name the picture's embedding under output, got 3"),
        (json.dumps({**CLIP, "labels": None}), "must have a list of names under labels, got nothing"),
        (json.dumps({**PLAIN, "outputs": {"logits": ["a"]}, "activation": "softmax"}), "two classes or more"),
    ],
)
def test_a_hostile_json(tmp_path, text, reason):
    refused(write(tmp_path, colour_network(RED_AND_BLUE, [0, 0]), text), reason)


def two_inputs():
    model = colour_network(RED_AND_BLUE, [0, 0])
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
    return model


def of_an_unknown_operator():
    model = colour_network(RED_AND_BLUE, [0, 0])
    model.graph.node[0].op_type = "RunThis"
    return model


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (b"", "cannot be run"),
        (b"not an onnx file at all", "is no ONNX model"),
        (colour_network(RED_AND_BLUE, [0, 0]).SerializeToString()[:-40], "is no ONNX model"),
        (two_inputs(), "must have one input, the pictures, got images, more"),
        (of_an_unknown_operator(), "cannot be run"),
        (colour_network(RED_AND_BLUE, [0, 0], batch=4), "takes [4, 3, 8, 8]"),
        (colour_network(RED_AND_BLUE, [0, 0], kind=TensorProto.DOUBLE), "must take float or float16, got tensor(dou"),
    ],
)  # fmt: skip
def test_a_network_that_does_not_fit(tmp_path, model, reason):
    refused(write(tmp_path, model, PLAIN), reason)


def reshaped(shape):
    model = colour_network(RED_AND_BLUE, [0, 0])
    model.graph.initializer.append(helper.make_tensor("shape", TensorProto.INT64, [2], shape))
    model.graph.node[2].output[0] = "flat"
    model.graph.node.append(helper.make_node("Reshape", ["flat", "shape"], ["logits"]))
    return model


def test_a_network_that_fails_later(tmp_path, pictures):
    """It can only take one picture and does not say so, which the black picture at the start cannot show."""
    (scorer,) = build_scorers([write(tmp_path, reshaped([1, 2]), PLAIN)])
    assert scorer(pictures[:1]).trusted.all()
    with pytest.raises(ScorerError, match="failed: ") as caught:
        scorer(pictures)
    assert "\n" not in str(caught.value)
    refused(write(tmp_path, reshaped([2, -1]), PLAIN), "must be numbers [1, 2], got float32 [2, 1]")


def test_numbers_in_a_file_beside_it(tmp_path, pictures):
    np.asarray(np.eye(3, 2), dtype=np.float32).tofile(tmp_path / "net.data")
    (scorer,) = build_scorers([write(tmp_path, model_with_everything_external("net.data"), PLAIN)])
    np.testing.assert_allclose(scorer(pictures).values, colours(pictures)[:, :2], rtol=0, atol=1e-5)


def in_the_folder_above(tmp_path):
    return "../secret"


def by_a_whole_path(tmp_path):
    return str(tmp_path / "secret")


def through_a_link(tmp_path):
    (tmp_path / "inner/link").symlink_to(tmp_path / "secret")
    return "link"


@pytest.mark.parametrize("where", [in_the_folder_above, by_a_whole_path, through_a_link])
def test_numbers_elsewhere_are_not_read(tmp_path, where):
    (tmp_path / "inner").mkdir()
    np.ones(6, dtype=np.float32).tofile(tmp_path / "secret")
    name = where(tmp_path)
    reason = f"takes numbers from {name!r}, which is not in its own folder"
    refused(write(tmp_path / "inner", model_with_everything_external(name), PLAIN), reason)
    hidden = outside(helper.make_tensor("t", TensorProto.FLOAT, [2, 3], bytes(24), raw=True), name)
    refused(write(tmp_path / "inner", with_subgraph(hidden), PLAIN), reason)


def test_numbers_that_are_not_there(tmp_path):
    for name in ("none", "no\0name", "x" * 5000, "."):
        refused(write(tmp_path, model_with_everything_external(name), PLAIN), "takes numbers from")
    (tmp_path / "short").write_bytes(bytes(8))
    refused(write(tmp_path, model_with_everything_external("short"), PLAIN), "cannot be run")
